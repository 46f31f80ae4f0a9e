"""What is submitted is read as it is, then and there, and stays the caller's."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ...errors import AdapterTimeout, InvalidInput, Unsupported
from ...types import AdamParams, Array, Datum, EncodedTextChunk, ModelInput
from ..conformance import needs, since
from .bench import EPS, SGD, Bench, datum, joined, values
from .fixtures import TrainingClientFixtures


def _strided(array: Array) -> Array:
    return np.repeat(array, 2)[::2]


def _reversed(array: Array) -> Array:
    return array[::-1].copy()[::-1]


def _read_only(array: Array) -> Array:
    kept = array.copy()
    kept.flags.writeable = False
    return kept


FORMS: Mapping[str, Callable[[Array], Array]] = {
    "every second of an array": _strided,
    "an array backwards": _reversed,
    "read-only": _read_only,
    "narrow": lambda array: array.astype(np.int32 if array.dtype.kind == "i" else np.float16),
    "wide": lambda array: array.astype(np.uint64 if array.dtype.kind == "i" else np.float64),
    "small": lambda array: array.astype(np.uint8) if array.dtype.kind == "i" else array,
    "of the other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
}
"""Forms of an array of integers, or of floating point numbers, that all hold the same."""


class Inputs(TrainingClientFixtures):
    """Datums: their arrays, and when they are read."""

    @since("1.5")
    @pytest.mark.parametrize("form", FORMS)
    def test_an_array_of_any_form_is_read_as_it_is(self, bench: Bench, form: str) -> None:
        """Loss inputs may be of any integer or floating point type, and lie in memory as they
        like: the results are those of int64 and float32.

        Usually broken by a library that takes an array's memory as it lies there, or refuses
        negative strides, unsigned integers, and what it cannot write to.
        """
        plain = [
            datum(_tokens(each), weights=np.arange(1, each.model_input.length + 1) / 4)
            for each in bench.batch(1)
        ]
        changed = [
            Datum(
                ModelInput((EncodedTextChunk(FORMS[form](np.array(each.model_input.to_ints()))),)),
                {name: FORMS[form](array) for name, array in each.loss_fn_inputs.items()},
            )
            for each in plain
        ]
        one, other = bench.start(), bench.start()
        expected = bench.forward_backward(one, plain)
        found = bench.forward_backward(other, changed)
        bench.same(joined(found), joined(expected))
        bench.same_sum(found.loss, -values(plain, "weights") * joined(expected))
        norms = [bench.optim_step(session, adam=SGD).grad_norm for session in (one, other)]
        bench.same_norm(*norms)

    @since("1.5")
    def test_datums_come_in_any_sequence(self, bench: Bench) -> None:
        """A tuple of datums is a batch like a list.

        Usually broken by adding lists, and by asking for the type.
        """
        session = bench.start()
        expected = bench.evaluate(session, bench.batch(1))
        bench.same(joined(bench.evaluate(session, tuple(bench.batch(1)))), joined(expected))

    @since("1.5")
    def test_datums_are_read_when_they_are_submitted(self, bench: Bench) -> None:
        """What the caller does with the list and its arrays after the call has no effect, though
        the operation has not run yet.

        Usually broken by a queue that keeps the caller's arrays: a loader that fills one buffer
        again and again trains on the wrong tokens, now and then.
        """
        patient, hasty = bench.start(), bench.start()
        seeds = (1, 2) * 4
        expected = [bench.forward_backward(patient, bench.batch(seed)).loss for seed in seeds]
        expected_norm = bench.optim_step(patient, adam=SGD).grad_norm
        futures = []
        for each in map(bench.batch, seeds):
            futures.append(bench.client.forward_backward(hasty, each))
            for one in each:
                for array in one.loss_fn_inputs.values():
                    array[:] = 0
                for chunk in one.model_input.chunks:
                    chunk.tokens[:] = 0  # type: ignore[union-attr]
            each.clear()
        bench.same([bench.client.await_(future).loss for future in futures], expected)
        bench.same_norm(bench.optim_step(hasty, adam=SGD).grad_norm, expected_norm)

    @since("1.5")
    def test_datums_are_left_as_they_were(self, bench: Bench) -> None:
        """No call changes the datums that it was given, nor their order: they are submitted again
        in the next epoch.

        Usually broken by weights that are normalised in place, and by `datums.sort()`.
        """
        session = bench.start()
        datums = bench.batch(1, sizes=(7, 3, 5), weight=0.25)
        before, order = copy.deepcopy(datums), [id(each) for each in datums]
        bench.forward_backward(session, datums)
        if bench.client.supports("forward"):
            bench.forward(session, datums)
        bench.optim_step(session)
        assert [id(each) for each in datums] == order
        for each, old in zip(datums, before, strict=True):
            assert each.model_input.to_ints() == old.model_input.to_ints()
            assert each.loss_fn_inputs.keys() == old.loss_fn_inputs.keys()
            for name, array in each.loss_fn_inputs.items():
                np.testing.assert_array_equal(array, old.loss_fn_inputs[name])

    @since("1.5")
    def test_a_seed_of_any_size_and_sign_makes_one_session(self, bench: Bench) -> None:
        """A negative seed, and one beyond 32 bits, makes the same session twice; one that the
        backend cannot take is `InvalidInput` or `Unsupported`, from `start_session` itself.

        Usually broken by a generator that takes seeds of 32 bits, and raises an error of its own.
        """
        for seed in (-1, -(2**40), 2**32 + 1, 2**63 - 1, 2**64 + 5):
            try:
                first, second = (bench.start(seed=seed) for _ in range(2))
            except (InvalidInput, Unsupported):
                continue
            bench.same(bench.losses(second, [1, 2]), bench.losses(first, [1, 2]))
            for session in (first, second):
                bench.client.close_session(session)

    @since("1.5")
    def test_eps_is_added_to_the_corrected_moment(self, bench: Bench) -> None:
        """With a large `eps` the first step is that of gradient descent, whatever the betas: `eps`
        is added to the root of the second moment after its correction for the bias.

        Usually broken by adding it before, which makes it as large as the correction makes it.
        """
        plain, other = bench.start(), bench.start()
        before = bench.logprobs(plain, bench.probe)
        bench.step(plain, bench.batch(1), adam=SGD)
        bench.step(other, bench.batch(1), adam=AdamParams(beta1=0.9, beta2=0.99, eps=EPS))
        found, expected = (bench.logprobs(each, bench.probe) for each in (other, plain))
        bench.same_step(before, found, expected)

    @since("1.5")
    def test_a_rate_may_be_an_integer(self, bench: Bench) -> None:
        """A learning rate of 1 is one of 1.0.

        Usually broken by asking for the type.
        """
        session, other = bench.start(), bench.start()
        before = bench.logprobs(session, bench.probe)
        eps = 1 / bench.learning_rate  # a step about as long as usual
        for each, rate in ((session, 1), (other, 1.0)):
            bench.step(each, bench.batch(1), rate, replace(SGD, eps=eps))
        found, expected = (bench.logprobs(each, bench.probe) for each in (session, other))
        bench.same_step(before, found, expected)

    @since("1.5")
    def test_what_is_done_is_returned_whatever_the_timeout(self, bench: Bench) -> None:
        """An operation that was awaited once is returned at a timeout of 0.

        Usually broken by a wait that gives up before it looks.
        """
        session = bench.start()
        future = bench.client.forward_backward(session, bench.batch(1))
        loss = bench.client.await_(future).loss
        for _ in range(100):  # a server, or a wrapper around one, may fail now and then
            with contextlib.suppress(AdapterTimeout):
                assert bench.client.await_(future, timeout=0).loss == loss
                return
        raise AssertionError("await_ with timeout=0 raised AdapterTimeout for what was done")

    @since("1.5")
    def test_training_continues_to_the_bit_where_it_is_deterministic(self, bench: Bench) -> None:
        """Where two sessions that do the same have equal losses to the last bit, one that continues
        from a checkpoint has them, too.

        Usually broken by a checkpoint of lower precision than the weights or the moments: nobody
        sees it in one step, and no run can be repeated.
        """
        first, second = bench.start(), bench.start()
        runs = [bench.losses(each, [1, 2, 1]) for each in (first, second)]
        reference = bench.save(first)
        rest = [bench.losses(each, [2, 1, 2]) for each in (first, second)]
        if runs[0] != runs[1] or rest[0] != rest[1]:
            pytest.skip("the backend is not deterministic to the last bit")
        bench.client.load_checkpoint(second, reference)
        started = bench.start(from_checkpoint=reference, with_optimizer=True)
        for each in (second, started):
            assert bench.losses(each, [2, 1, 2]) == rest[0]

    @since("1.5")
    @needs("list_checkpoints")
    def test_labels_are_compared_as_they_were_given(self, bench: Bench) -> None:
        """`list_checkpoints` compares labels character by character: white space, case, accents,
        and what looks like an escape all count.

        Usually broken by labels that are stripped, normalised, or made fit for a file or a URL.
        """
        session = bench.start()
        labels = ("a", " a", "A", "a/b", "a_b", "a%2Fb", "\u00e9", "e\u0301", "\n", "")
        saved = [(label, bench.save(session, f"l/{label}")) for label in labels]
        for prefix in (*labels, "a ", " ", "a%", "e", "\t", "a/"):
            expected = [reference for label, reference in saved if label.startswith(prefix)]
            found = list(bench.client.list_checkpoints(f"{bench.label}l/{prefix}"))
            assert found == expected, f"labels that begin with {prefix!r}"


def _tokens(each: Datum) -> list[int]:
    """Return the sequence of which a datum was made."""
    last: Any = each.loss_fn_inputs["target_tokens"][-1]
    return [*each.model_input.to_ints(), int(last)]
