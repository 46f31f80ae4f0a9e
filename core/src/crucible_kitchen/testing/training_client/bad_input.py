"""Bad input is refused at submission."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ...errors import InvalidInput, Unsupported
from ...types import Datum
from ..conformance import needs
from ..refusal import refuses
from .bench import GOOD, Bench, Config, datum, joined
from .fixtures import TrainingClientFixtures

REFUSALS = (InvalidInput, Unsupported)
FAR = np.iinfo(np.int64).max
NAN, INFINITE = (np.array([1, value], np.float32) for value in (np.nan, np.inf))


def _bad_input() -> Iterator[tuple[str, Any, str, Config]]:
    """Yield what must be refused: a name for it, datums, loss and config."""

    def other(change: str, value: Any, base: Datum = GOOD) -> list[Datum]:
        inputs = {**base.loss_fn_inputs, change: value}
        kept = {name: array for name, array in inputs.items() if array is not None}
        return [base, Datum(base.model_input, kept)]

    for problem, datums in {
        "no datums": [],
        "no tokens": [GOOD, datum([1], weights=[])],
        "no datum": [GOOD, {"model_input": [1, 2]}],
        "weights too short": other("weights", np.ones(1, np.float32)),
        "weights too long": other("weights", np.ones(3, np.float32)),
        "weights of two axes": other("weights", np.ones((2, 1), np.float32)),
        "weights of integers": other("weights", np.ones(2, np.int64)),
        "weights in a list": other("weights", [1.0, 1.0]),
        "targets too short": other("target_tokens", np.array([2])),
        "targets of floats": other("target_tokens", np.array([2.0, 3.0])),
        "a weight that is NaN": other("weights", NAN),
        "a weight that is infinite": other("weights", INFINITE),
        "a weight beyond float32": other("weights", np.array([1e39, 1.0])),
        "a negative token": [GOOD, datum([-1, 2, 3], weights=[1, 1])],
        "a negative target": [GOOD, datum([1, 2, -3], weights=[1, 1])],
        "a token of no vocabulary": [GOOD, datum([1, FAR, 3], weights=[1, 1])],
        "a target of no vocabulary": [GOOD, datum([1, 2, FAR], weights=[1, 1])],
        "no targets": other("target_tokens", None),
        "no weights": other("weights", None),
        "an input of no loss": other("mask", np.ones(2, np.float32)),
    }.items():
        yield problem, datums, "cross_entropy", None
    sampled = datum([1, 2, 3], logprobs=[-1, -1], advantages=[1, 1])
    for problem, datums in {
        "an advantage that is NaN": other("advantages", NAN, sampled),
        "a logprob that is infinite": other("logprobs", -INFINITE, sampled),
        "no advantages": other("advantages", None, sampled),
        "an input of another loss": other("weights", np.ones(2, np.float32), sampled),
    }.items():
        yield problem, datums, "ppo", None
    yield "a loss that is none", [GOOD], "mean_squared_error", None
    yield "a setting that is none", [sampled], "ppo", {"clip_range": 0.2}
    yield "a setting that is NaN", [sampled], "ppo", {"clip_high_threshold": math.nan}
    yield "a setting of another loss", [GOOD], "cross_entropy", {"clip_low_threshold": 0.8}


BAD_INPUT = {problem: rest for problem, *rest in _bad_input()}


class BadInput(TrainingClientFixtures):
    """What is refused, and when."""

    @pytest.mark.parametrize("problem", BAD_INPUT)
    def test_bad_input_is_refused_at_submission(self, bench: Bench, problem: str) -> None:
        """Bad input is `InvalidInput`, or `Unsupported`, from `forward_backward` itself. Nothing
        was queued, and the session can be used.

        Usually broken by leaving it to the backend, which finds out later, or never: it pads,
        cuts, converts, or trains on NaN.
        """
        datums, loss_fn, config = BAD_INPUT[problem]
        session = bench.start()
        refuses(REFUSALS, bench.client.forward_backward, session, datums, loss_fn, config)
        bench.check_nothing_is_queued(session)

    @needs("forward")
    def test_bad_input_is_refused_by_forward(self, bench: Bench) -> None:
        """`forward` refuses the same, except for missing weights.

        Usually broken by checks that only the other callback has.
        """
        session = bench.start()
        for problem, (datums, loss_fn, config) in BAD_INPUT.items():
            if problem != "no weights":
                try:
                    refuses(REFUSALS, bench.client.forward, session, datums, loss_fn, config)
                except AssertionError as error:
                    raise AssertionError(f"{problem}: {error}") from error
        bench.check_nothing_is_queued(session)

    def test_an_input_beyond_max_length_is_refused(self, bench: Bench) -> None:
        """A session of `max_length` 6 reads 6 tokens and refuses 7, or is refused itself.

        Usually broken by truncation: the end of each text, which is the answer, is never trained
        on.
        """
        try:
            session = bench.start(max_length=6)
        except Unsupported:
            return  # not ignored, which is what matters
        assert joined(bench.forward_backward(session, bench.batch(1, sizes=(6,)))).shape == (6,)
        bench.optim_step(session)
        for submit in ("forward_backward", "forward"):
            if bench.client.supports(submit):
                refuses(
                    InvalidInput,
                    getattr(bench.client, submit),
                    session,
                    bench.batch(1, sizes=(2, 7)),
                )
        bench.check_nothing_is_queued(session)

    def test_an_input_beyond_the_model_s_context_is_refused(
        self, bench: Bench, max_length: int | str | None
    ) -> None:
        """An input of the longest length is read, one token more is `InvalidInput`, even if
        the session's `max_length` would allow it.

        Usually broken by truncation, or by an error of the backend while others wait behind it.
        """
        longest = self.given(None if max_length is None else int(max_length), "max_length")
        sessions = [bench.start()]
        with contextlib.suppress(Unsupported, InvalidInput):
            sessions.append(bench.start(max_length=2 * longest))
        for session in sessions:
            result = bench.evaluate(session, bench.batch(1, sizes=(longest,)))
            assert joined(result).shape == (longest,)
            refuses(
                InvalidInput,
                bench.client.forward_backward,
                session,
                bench.batch(1, sizes=(longest + 1,)),
            )

    def test_the_vocabulary_ends_where_it_ends(
        self, bench: Bench, vocab_size: int | str | None
    ) -> None:
        """The last token of the vocabulary is read and predicted, the next one is refused.

        Usually broken by the size of an embedding that was padded, or by one too few.
        """
        size = self.given(None if vocab_size is None else int(vocab_size), "vocab_size")
        session = bench.start()
        result = bench.forward_backward(session, [datum([1, size - 1, size - 1], weights=[1, 1])])
        assert np.isfinite(joined(result)).all()
        bench.optim_step(session)
        for sequence in ([1, size, 2], [1, 2, size]):
            refuses(
                InvalidInput,
                bench.client.forward_backward,
                session,
                [datum(sequence, weights=[1, 1])],
            )
        bench.check_nothing_is_queued(session)
