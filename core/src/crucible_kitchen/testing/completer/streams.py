"""Streams of completions."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from ...errors import Unsupported
from ...ports import Completer
from ...types import Completion, CompletionChunk, SamplingParams
from ..conformance import needs
from .comparison import FINISH_REASONS, almost_met, late_part, offered, same
from .fixtures import CompleterFixtures


class Streams(CompleterFixtures):
    """`stream_complete`."""

    @needs("stream_complete")
    def test_a_stream_adds_up_to_the_completion(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """The texts, tokens, log probabilities and reasoning of the pieces, joined, are those of
        `complete`; the last piece, and no other, has the finish reason.

        Usually broken by a last piece that is lost because it comes with the finish reason, by a
        half of a character, or of a stop string, that is given too early, and by NaN where the
        server gives null.
        """
        whole = completer.complete(asked, greedy)
        cases = [greedy, replace(greedy, max_tokens=1)]
        with contextlib.suppress(Unsupported):
            asking = replace(greedy, logprobs=True)
            completer.complete(asked, asking)
            cases.append(asking)
        if whole.text.strip("\ufffd"):
            cases.append(replace(greedy, stop=(late_part(whole.text), "never there")))
            cases.append(replace(greedy, stop=(almost_met(whole.text),)))
        for params in cases:
            chunks = list(completer.stream_complete(asked, params))
            same(joined(chunks), completer.complete(asked, params), self.tolerance)

    @needs("stream_complete")
    def test_any_stream_adds_up_to_the_completion_of_its_seed(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Whatever the seed, the length and the stop strings, a stream is `complete` in pieces.

        Usually broken by a second way to sample, for streams alone.
        """
        with offered("a seed"):
            text = completer.complete(asked, replace(sampling, seed=0)).text
        parts = sorted({text[i : i + size] for i in range(len(text)) for size in (1, 2)} | {"the"})
        stops = st.none() | st.lists(st.sampled_from(parts), min_size=1, max_size=3)

        @self.hypothesis_settings()
        @hypothesis.given(
            seed=st.integers(0, 2**31), max_tokens=st.integers(1, sampling.max_tokens), stop=stops
        )
        def check(seed: int, max_tokens: int, stop: list[str] | None) -> None:
            params = replace(
                sampling, seed=seed, max_tokens=max_tokens, stop=None if stop is None else (*stop,)
            )
            whole = completer.complete(asked, params)
            same(joined(list(completer.stream_complete(asked, params))), whole, self.tolerance)

        check()

    @needs("stream_complete")
    def test_a_stream_may_be_left_early(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Leaving a stream frees the server, so it may be done often, even before the first piece.

        Usually broken by connections that are never returned, and by generations that go on.
        """
        for turn in range(20):
            with completer.stream_complete(asked, sampling) as stream:
                if turn % 4:
                    assert isinstance(next(stream), CompletionChunk)
            assert list(stream) == []
        assert completer.complete(asked, sampling).finish_reason in FINISH_REASONS


def joined(chunks: Sequence[CompletionChunk]) -> Completion:
    """Return the completion that the pieces of a stream add up to."""
    assert chunks, "a stream has a piece, at the least that with the finish reason"
    assert all(isinstance(chunk, CompletionChunk) for chunk in chunks)
    *others, last = [chunk.finish_reason for chunk in chunks]
    assert others == [None] * len(others)
    assert last in FINISH_REASONS
    return Completion(
        text="".join(chunk.text for chunk in chunks),
        tokens=_concatenated([chunk.tokens for chunk in chunks]),
        logprobs=_concatenated([chunk.logprobs for chunk in chunks]),
        finish_reason=last,
        reasoning="".join(chunk.reasoning or "" for chunk in chunks),
    )


def _concatenated(parts: list[Any]) -> Any:
    known = [part for part in parts if part is not None]
    assert len(known) in (0, len(parts)), "all pieces have tokens, or none"
    return np.concatenate(known) if known else None
