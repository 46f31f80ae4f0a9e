"""Several processes train with one backend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import NotFound, Unsupported
from ...ports import TrainingClient
from ...types import FloatArray, SessionConfig
from ..conformance import needs, since, unless_synthetic
from ..processes import Elsewhere
from ..processes.places import absolute
from ..processes.state import left_alone
from ..refusal import refuses
from .bench import DROPOUT, Bench
from .fixtures import TrainingClientFixtures


@dataclass(frozen=True)
class Plan:
    """What makes an equal bench in another process."""

    config: SessionConfig
    learning_rate: float
    tolerance: float
    tokens: int
    label: str

    @classmethod
    def of(cls, bench: Bench) -> Plan:
        config = replace(bench.config, model=absolute(bench.config.model))
        return cls(config, bench.learning_rate, bench.tolerance, bench.tokens, bench.label)

    def bench(self, client: TrainingClient) -> Bench:
        return Bench(
            client, self.config, self.learning_rate, self.tolerance, self.tokens, self.label
        )


class Processes(TrainingClientFixtures):
    """What holds between processes that use one backend under equal options."""

    @since("1.5")
    @unless_synthetic
    def test_a_process_that_is_started_later_continues(
        self, bench: Bench, elsewhere: Elsewhere
    ) -> None:
        """Training goes on from a reference in a process that starts after it was returned, in
        another working directory, as it would have gone on here; and here from the reference that
        that process returns.

        Usually broken by a reference to memory, to an open session or to a path that begins in the
        working directory, and by a table of checkpoints that only their process has.
        """
        session = bench.start()
        bench.losses(session, [1, 2])
        reference = bench.save(session)
        rest = bench.losses(session, [1, 2])
        bench.client.close_session(session)
        started, loaded, theirs = elsewhere.run(_continue, Plan.of(bench), reference)
        bench.references.append(theirs)
        bench.same(started, rest)
        bench.same(loaded, rest)
        back = bench.start(from_checkpoint=theirs, with_optimizer=True)
        again = bench.start(from_checkpoint=reference, with_optimizer=True)
        bench.losses(again, [1, 2])
        bench.same(bench.losses(back, [2, 1]), bench.losses(again, [2, 1]))

    @since("1.5")
    @unless_synthetic
    def test_processes_that_save_at_once_do_not_disturb_each_other(
        self, bench: Bench, elsewhere: Elsewhere
    ) -> None:
        """Two processes save checkpoints of one label at the same time: every reference is new, and
        holds what its process has saved.

        Usually broken by a number that is found by counting what is there, and by a temporary
        folder of one name.
        """
        [there] = elsewhere.submit_together(_train_and_save, [(Plan.of(bench), 2, 3)])
        here = _train_and_save(bench.client, Plan.of(bench), 1, 3)
        theirs = there.result()
        bench.references += [reference for reference, _ in (*here, *theirs)]
        assert len({*bench.references}) == 6
        session = bench.start()
        for reference, logprobs in (*here, *theirs):
            bench.client.load_checkpoint(session, reference)
            bench.same(bench.logprobs(session, bench.probe), logprobs)

    @since("1.5")
    @needs("list_checkpoints")
    @unless_synthetic
    def test_processes_list_checkpoints_in_one_order(
        self, bench: Bench, elsewhere: Elsewhere
    ) -> None:
        """`list_checkpoints` returns what all processes have saved, oldest first, in each of them
        the same; what one deletes is gone in the other.

        Usually broken by the order of a set or a folder, by a process id in a name by which
        references are sorted, or by a list that each process keeps for itself.
        """
        session = bench.start()
        saved = []
        for _ in range(3):
            saved.append(bench.save(session, "same"))
            [(theirs, _)] = elsewhere.run(_train_and_save, Plan.of(bench), 1, 1)
            bench.references.append(theirs)
            saved.append(theirs)
        assert [*bench.client.list_checkpoints(bench.label)] == saved
        assert elsewhere.run(_list, bench.label) == saved
        if bench.client.supports("delete_checkpoint"):
            elsewhere.run(TrainingClient.delete_checkpoint, saved[2])
            refuses(NotFound, bench.client.load_checkpoint, session, saved[2])
            rest = [*saved[:2], *saved[3:]]
            assert [*bench.client.list_checkpoints(bench.label)] == rest

    @since("1.5")
    @unless_synthetic
    def test_a_checkpoint_that_was_saved_survives_a_kill(
        self, bench: Bench, elsewhere: Elsewhere
    ) -> None:
        """A checkpoint whose reference was returned is complete although its process was killed at
        that very moment; one that was still being saved is complete or not there.

        Usually broken by a thread that writes after `save_checkpoint` has returned, or by a listing
        of folders in which a file is missing.
        """
        behind = bench.client.supports("save_checkpoint_async")
        save = _save_and_submit_another if behind else _train_and_save_one
        reference, logprobs = elsewhere.run_and_die(save, Plan.of(bench))
        bench.references.append(reference)
        session = bench.start(from_checkpoint=reference)
        bench.same(bench.logprobs(session, bench.probe), logprobs)
        if bench.client.supports("list_checkpoints"):
            listed = [*bench.client.list_checkpoints(bench.label)]
            assert reference in listed
            for each in listed:
                bench.client.load_checkpoint(session, each)
        later = bench.save(session)
        bench.client.load_checkpoint(session, later)

    @since("1.5")
    def test_another_process_begins_with_the_same_numbers(
        self, bench: Bench, elsewhere: Elsewhere
    ) -> None:
        """A session of one config starts from the same weights in every process, and has the same
        losses, with dropout too.

        Usually broken by a seed that is mixed with `hash` of a parameter's name, with the process
        id or the time, and by the order of a set of parameters.
        """
        mine = _first_numbers(bench.client, Plan.of(bench))
        theirs = elsewhere.run(_first_numbers, Plan.of(bench))
        assert theirs.keys() == mine.keys()
        for name in mine:
            bench.same(theirs[name], mine[name])

    @since("1.5")
    @needs("get_info")
    def test_another_process_knows_the_same_about_a_session(
        self, bench: Bench, elsewhere: Elsewhere
    ) -> None:
        """`get_info` returns the same in every process under equal options.

        Usually broken by a digest that depends on `hash`, and by the working directory, the
        process or the time in it: a run may not continue if one of them differs.
        """
        session = bench.start()
        assert elsewhere.run(_info, Plan.of(bench)) == dict(bench.client.get_info(session))

    @since("1.5")
    def test_the_process_stays_as_it_was(self, bench: Bench, elsewhere: Elsewhere) -> None:
        """No call changes the umask or the working directory, or seeds the generators of `random`
        and NumPy, which all threads share.

        Usually broken by `os.chdir` into the folder of a checkpoint, and by seeding every generator
        of the program for the sake of one session.
        """
        changed = elsewhere.run(_changed, Plan.of(bench))
        assert not changed, "what the calls have changed"


# --- in any process ---


def _continue(
    client: TrainingClient, plan: Plan, reference: str
) -> tuple[list[float], list[float], str]:
    """Return the losses that follow a checkpoint, started from and loaded, and a new reference."""
    bench = plan.bench(client)
    started = bench.start(from_checkpoint=reference, with_optimizer=True)
    loaded = bench.start()
    client.load_checkpoint(loaded, reference)
    losses = [bench.losses(session, [1, 2]) for session in (started, loaded)]
    saved = bench.save(started)
    _close(bench)
    return losses[0], losses[1], saved


def _train_and_save(
    client: TrainingClient, plan: Plan, seed: int, times: int
) -> list[tuple[str, FloatArray]]:
    """Return references, each with the log probabilities of what it holds."""
    bench = plan.bench(client)
    session = bench.start()
    saved = []
    for _ in range(times):
        bench.losses(session, [seed])
        saved.append((bench.save(session, "same"), bench.logprobs(session, bench.probe)))
    _close(bench)
    return saved


def _train_and_save_one(client: TrainingClient, plan: Plan) -> tuple[str, FloatArray]:
    return _train_and_save(client, plan, 1, 1)[0]


def _save_and_submit_another(client: TrainingClient, plan: Plan) -> tuple[str, FloatArray]:
    bench = plan.bench(client)
    session = bench.start()
    bench.losses(session, [1])
    logprobs = bench.logprobs(session, bench.probe)
    reference: str = client.await_(bench.submit_save(session))
    bench.losses(session, [2])
    bench.submit_save(session)
    return reference, logprobs


def _list(client: TrainingClient, prefix: str) -> list[str]:
    return [*client.list_checkpoints(prefix)]


def _first_numbers(client: TrainingClient, plan: Plan) -> dict[str, Any]:
    bench = plan.bench(client)
    session = bench.start()
    found = {
        "log probabilities": bench.logprobs(session, bench.probe),
        "losses": np.array(bench.losses(session, [1, 2])),
    }
    try:
        dropping = bench.start(lora=DROPOUT)
    except Unsupported:  # reported by the tests of dropout
        pass
    else:
        found["losses with dropout"] = np.array(bench.losses(dropping, [1, 2]))
    _close(bench)
    return found


def _info(client: TrainingClient, plan: Plan) -> dict[str, Any]:
    bench = plan.bench(client)
    info = dict(client.get_info(bench.start()))
    _close(bench)
    return info


def _changed(client: TrainingClient, plan: Plan) -> dict[str, Any]:
    """Return what the calls of a client change of its process."""

    def calls() -> None:
        bench = plan.bench(client)
        session = bench.start()
        bench.losses(session, [1])
        client.load_checkpoint(session, bench.save(session))
        bench.clean()

    return left_alone(calls)


def _close(bench: Bench) -> None:
    """Close the sessions, and leave the checkpoints."""
    for session in bench.sessions:
        bench.client.close_session(session)
