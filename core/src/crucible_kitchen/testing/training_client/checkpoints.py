"""Checkpoints: saving, loading, listing, deleting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ...errors import InvalidInput, NotFound
from ...ports import TrainingClient
from ..conformance import Reopen, needs, since, unless_synthetic
from ..refusal import refuses
from .bench import DROPOUT, SGD, Bench
from .fixtures import TrainingClientFixtures


class Checkpoints(TrainingClientFixtures):
    """Training continues as if it had never been interrupted."""

    def test_training_continues_from_a_checkpoint(self, bench: Bench) -> None:
        """From a checkpoint training goes on as if it had never been interrupted: in the same
        session, twice, and in another one.

        Usually broken by a checkpoint without the optimizer's state, or of lower precision.
        """
        session = bench.start()
        bench.losses(session, [1, 2, 1])
        reference = bench.save(session)
        before = bench.logprobs(session, bench.probe)
        rest = bench.losses(session, [2, 1, 2])
        for _ in range(2):
            bench.client.load_checkpoint(session, reference)
            bench.same(bench.logprobs(session, bench.probe), before)
            bench.same(bench.losses(session, [2, 1, 2]), rest)
        loaded = bench.start()
        bench.client.load_checkpoint(loaded, reference)
        started = bench.start(from_checkpoint=reference, with_optimizer=True)
        for other in (loaded, started):
            bench.same(bench.logprobs(other, bench.probe), before)
            bench.same(bench.losses(other, [2, 1, 2]), rest)

    def test_training_with_dropout_continues_from_a_checkpoint(self, bench: Bench) -> None:
        """A checkpoint holds the state of randomness: what is dropped after it is the same each
        time, and an evaluation in between has no influence.

        Usually broken by a generator that is not saved, or that others draw from.
        """
        session = bench.start_with_dropout()
        bench.losses(session, [1, 2])
        reference = bench.save(session)
        rest = bench.losses(session, [1, 1, 2])
        bench.client.load_checkpoint(session, reference)
        other = bench.start(lora=DROPOUT, from_checkpoint=reference, with_optimizer=True)
        for each in (session, other):
            bench.logprobs(each, bench.probe)
            bench.same(bench.losses(each, [1, 1, 2]), rest)

    @unless_synthetic
    def test_another_process_continues(
        self, bench: Bench, reopen: Reopen[TrainingClient] | None
    ) -> None:
        """Another process that opens the client under the same options can continue from a
        reference, even after the session that saved it was closed.

        Usually broken by a reference to memory, to an open session, or to a temporary folder.
        """
        another = self.given(reopen, "reopen")
        session = bench.start()
        bench.losses(session, [1, 2])
        reference = bench.save(session)
        rest = bench.losses(session, [1, 2])
        bench.client.close_session(session)
        with another() as client:
            other = replace(bench, client=client, sessions=[], references=[])
            started = other.start(from_checkpoint=reference, with_optimizer=True)
            loaded = other.start()
            client.load_checkpoint(loaded, reference)
            for each in (started, loaded):
                bench.same(other.losses(each, [1, 2]), rest)
            other.clean()

    def test_a_checkpoint_outlives_its_session(self, bench: Bench) -> None:
        """A reference stays valid after its session was closed.

        Usually broken by freeing what belongs to a session together with it.
        """
        session = bench.start()
        bench.losses(session, [1])
        before = bench.logprobs(session, bench.probe)
        reference = bench.save(session)
        bench.client.close_session(session)
        bench.same(bench.logprobs(bench.start(from_checkpoint=reference), bench.probe), before)

    def test_without_the_optimizer_its_state_starts_afresh(self, bench: Bench) -> None:
        """With `with_optimizer=False`, which is the default of a new session and not of
        `load_checkpoint`, the weights are those of the checkpoint, and Adam starts again.

        Usually broken by a backend that restores both anyway (SkyRL 0.3), or clears the moments
        and not the count of steps.
        """
        session = bench.start()
        before = bench.logprobs(session, bench.probe)
        early = bench.save(session)
        for seed in (1, 2, 1):
            bench.step(session, bench.batch(seed), rate=0.0)  # the same weights, other moments
        late = bench.save(session)
        bench.client.load_checkpoint(session, early)
        bench.step(session, bench.batch(2))
        expected = bench.logprobs(session, bench.probe)
        bench.client.load_checkpoint(session, late, with_optimizer=False)
        for each in (session, bench.start(from_checkpoint=late)):
            bench.same(bench.logprobs(each, bench.probe), before)
            bench.step(each, bench.batch(2))
            bench.same_step(before, bench.logprobs(each, bench.probe), expected)

    @unless_synthetic
    def test_with_the_optimizer_its_state_is_kept(self, bench: Bench) -> None:
        """With the optimizer, two checkpoints of the same weights and other moments lead to
        other places.

        Usually broken by checkpoints of the weights alone: after each resume a run learns as if
        it had just begun.
        """
        session = bench.start()
        before = bench.logprobs(session, bench.probe)
        early = bench.save(session)
        for seed in (1, 2, 1):
            bench.step(session, bench.batch(seed), rate=0.0)
        late = bench.save(session)
        outcomes = []
        for reference in (early, late):
            bench.client.load_checkpoint(session, reference)
            bench.step(session, bench.batch(2))
            outcomes.append(bench.logprobs(session, bench.probe))
        bench.other_step(before, *outcomes)
        started = bench.start(from_checkpoint=late, with_optimizer=True)
        bench.step(started, bench.batch(2))
        bench.same_step(before, bench.logprobs(started, bench.probe), outcomes[1])

    def test_saving_with_gradients_pending_is_refused(self, bench: Bench) -> None:
        """`save_checkpoint` with gradients accumulated is `InvalidInput`: they would be lost.
        They stay, and the session goes on.

        Usually broken by saving what there is; resumed, the run misses a batch.
        """
        session, other = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        bench.forward_backward(session, bench.batch(1))
        refuses(InvalidInput, bench.client.save_checkpoint, session, bench.label)
        if bench.client.supports("list_checkpoints"):
            assert list(bench.client.list_checkpoints(bench.label)) == []
        bench.optim_step(session, adam=SGD)
        bench.step(other, bench.batch(1), adam=SGD)
        found, expected = (bench.logprobs(each, bench.probe) for each in (session, other))
        bench.same_step(before, found, expected)
        bench.save(session)

    def test_loading_drops_pending_gradients(self, bench: Bench) -> None:
        """After `load_checkpoint` nothing is accumulated.

        Usually broken by a gradient of other weights that stays in its buffer.
        """
        session, fresh = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        reference = bench.save(session)
        bench.client.forward_backward(session, bench.batch(2))
        bench.client.load_checkpoint(session, reference)
        refuses(InvalidInput, bench.client.optim_step, session, bench.learning_rate)
        for each in (session, fresh):
            bench.step(each, bench.batch(1), adam=SGD)
        found, expected = (bench.logprobs(each, bench.probe) for each in (session, fresh))
        bench.same_step(before, found, expected)

    def test_saving_waits_for_what_is_queued(self, bench: Bench) -> None:
        """A checkpoint holds every step that was submitted before it, and loading one comes
        after them.

        Usually broken by saving around the queue.
        """
        session, patient = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        first = bench.save(session)
        for seed in (1, 2):
            bench.client.forward_backward(session, bench.batch(seed))
            bench.client.optim_step(session, bench.learning_rate)
        second = bench.save(session)
        bench.client.forward_backward(session, bench.batch(1))
        bench.client.optim_step(session, bench.learning_rate)
        bench.client.load_checkpoint(session, first)
        bench.same(bench.logprobs(session, bench.probe), before)
        bench.client.load_checkpoint(session, second)
        bench.losses(patient, [1, 2])
        bench.same(bench.logprobs(session, bench.probe), bench.logprobs(patient, bench.probe))

    @needs("save_checkpoint_async")
    @since("1.4")
    def test_a_checkpoint_saved_meanwhile_holds_the_state_of_its_place_in_the_queue(
        self, bench: Bench
    ) -> None:
        """`save_checkpoint_async` saves the state after what was submitted before it, whatever is
        submitted behind it, and whenever it is awaited; training goes on undisturbed.

        Usually broken by a thread that reads weights which the next step is changing, or by a
        checkpoint that is made when it is awaited.
        """
        session, patient = bench.start(), bench.start()
        losses, states = bench.losses(patient, [1]), []
        for seed in (2, 1):
            states.append(bench.logprobs(patient, bench.probe))
            losses += bench.losses(patient, [seed])
        passes: list[Any] = []
        saved: list[Any] = []
        for seed in (1, 2, 1):
            passes.append(bench.client.forward_backward(session, bench.batch(seed)))
            last = bench.client.optim_step(session, bench.learning_rate)
            if len(saved) < len(states):
                saved.append(bench.submit_save(session))
        bench.client.await_(last)
        bench.same([bench.client.await_(each).loss for each in passes], losses)
        references = [bench.saved(each) for each in reversed(saved)][::-1]
        assert len(set(references)) == len(references)
        for reference, state in zip(references, states, strict=True):
            bench.client.load_checkpoint(session, reference)
            bench.same(bench.logprobs(session, bench.probe), state)
        bench.client.load_checkpoint(session, references[0])
        bench.same(bench.losses(session, [2, 1]), losses[1:])

    @needs("save_checkpoint_async")
    @since("1.4")
    def test_what_was_saved_meanwhile_is_a_checkpoint_like_any_other(self, bench: Bench) -> None:
        """Once `await_` returned its reference, again the same and from any thread, a checkpoint
        that was saved meanwhile is listed, can be loaded, and outlives its session.

        Usually broken by a reference that is returned before its checkpoint is complete.
        """
        session = bench.start()
        bench.losses(session, [1])
        before = bench.logprobs(session, bench.probe)
        saved = bench.submit_save(session)
        reference = bench.saved(saved)
        with ThreadPoolExecutor(2) as pool:
            assert {*pool.map(bench.client.await_, [saved] * 4)} == {reference}
        if bench.client.supports("list_checkpoints"):
            assert list(bench.client.list_checkpoints(bench.label)) == [reference]
        bench.client.close_session(session)
        bench.same(bench.logprobs(bench.start(from_checkpoint=reference), bench.probe), before)

    @needs("save_checkpoint_async")
    @since("1.4")
    def test_saving_meanwhile_with_gradients_pending_is_refused(self, bench: Bench) -> None:
        """`save_checkpoint_async` with gradients accumulated is `InvalidInput` at submission, and
        the session goes on.

        Usually broken by a check that is made by `save_checkpoint` alone.
        """
        session = bench.start()
        bench.client.forward_backward(session, bench.batch(1))
        refuses(InvalidInput, bench.client.save_checkpoint_async, session, bench.label)
        bench.optim_step(session, adam=SGD)
        bench.saved(bench.submit_save(session))

    def test_saving_never_replaces(self, bench: Bench) -> None:
        """Each save returns a new reference, even under the same label, and the old ones stay what
        they were while training goes on.

        Usually broken by a label that is the name of a folder.
        """
        session = bench.start()
        saved = {}
        for seed in (1, 2, 1):
            saved[bench.save(session, "same")] = bench.logprobs(session, bench.probe)
            saved[bench.save(session, "same")] = bench.logprobs(session, bench.probe)
            bench.losses(session, [seed])
        assert len(saved) == 6
        for reference, logprobs in reversed(saved.items()):
            bench.client.load_checkpoint(session, reference)
            bench.same(bench.logprobs(session, bench.probe), logprobs)

    def test_any_label_works(self, bench: Bench) -> None:
        """A label may have any characters and any length.

        Usually broken by a label that becomes a path or a part of a URL: a name that the backend
        refuses (SkyRL takes `[a-zA-Z0-9_-]`), or a file somewhere else.
        """
        session = bench.start()
        references = [bench.save(session, label) for label in self.labels]
        assert len(set(references)) == len(references)
        before = bench.logprobs(session, bench.probe)
        for reference in references:
            bench.client.load_checkpoint(session, reference)
        bench.same(bench.logprobs(session, bench.probe), before)

    def test_an_unknown_checkpoint_is_not_found(self, bench: Bench) -> None:
        """Loading a reference that was never returned, such as a label, is `NotFound` and changes
        nothing, pending gradients included; so is starting from one.

        Usually broken by joining a reference to a path, or by clearing before looking.
        """
        session, other = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        saved = bench.save(session)
        bench.forward_backward(session, bench.batch(1))
        unknown = ("", ".", "..", "/", f"{bench.label}x", f"{saved}x", f"../{saved}", "é\0")
        for reference in unknown:
            refuses(NotFound, bench.client.load_checkpoint, session, reference)
            refuses(
                NotFound,
                bench.client.start_session,
                replace(bench.config, from_checkpoint=reference),
            )
        bench.optim_step(session, adam=SGD)
        bench.step(other, bench.batch(1), adam=SGD)
        found, expected = (bench.logprobs(each, bench.probe) for each in (session, other))
        bench.same_step(before, found, expected)

    @needs("list_checkpoints")
    def test_checkpoints_are_listed_by_label_oldest_first(self, bench: Bench) -> None:
        """`list_checkpoints` returns the references whose label begins with the prefix, oldest
        first.

        Usually broken by sorting by name (step-10 before step-9), by a prefix that is taken for
        a pattern, or by listing the labels.
        """
        session = bench.start()
        labels = ["step-9", "step-10", "other", "step-9", "[ab]*", "b"]
        saved = [(label, bench.save(session, label)) for label in labels]
        assert list(bench.client.list_checkpoints(bench.label)) == [ref for _, ref in saved]
        for prefix in ("step-", "step-1", "step-9", "[ab]", "*", "B", "none"):
            expected = [reference for label, reference in saved if label.startswith(prefix)]
            found = bench.client.list_checkpoints(f"{bench.label}{prefix}")
            assert list(found) == expected, prefix
        assert {reference for _, reference in saved} <= set(bench.client.list_checkpoints())
        assert list(bench.client.list_checkpoints(bench.label[1:])) == []

    @needs("delete_checkpoint")
    def test_a_deleted_checkpoint_is_gone(self, bench: Bench) -> None:
        """After `delete_checkpoint` a reference is `NotFound` and stays so when its label is
        saved again; others stay; deleting again, or what never was, is fine.

        Usually broken by deleting by label, or by making a repeat an error.
        """
        session = bench.start()
        doomed, kept = bench.save(session), bench.save(session)
        for reference in (doomed, doomed, "", "..", f"{doomed}x"):
            bench.client.delete_checkpoint(reference)
        later = bench.save(session)
        refuses(NotFound, bench.client.load_checkpoint, session, doomed)
        if bench.client.supports("list_checkpoints"):
            assert list(bench.client.list_checkpoints(bench.label)) == [kept, later]
        for reference in (kept, later):
            bench.client.load_checkpoint(session, reference)
