"""One prompt, one completion."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ...errors import InvalidInput
from ...ports import Completer
from ...types import Completion, SamplingParams
from ..refusal import refuses
from .comparison import FINISH_REASONS, count
from .fixtures import CompleterFixtures


class SingleCompletions(CompleterFixtures):
    """`complete`."""

    def test_a_completion_says_what_why_and_how_much(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """`complete` returns text, the reason for its end, token ids if it knows them, and a usage
        that agrees with them.

        Usually broken by passing on a server's own finish reason ("eos_token", "abort"), and by a
        usage that leaves the end token out.
        """
        for params in (sampling, replace(sampling, temperature=0.0)):
            completion = completer.complete(asked, params)
            assert isinstance(completion, Completion)
            assert isinstance(completion.text, str)
            assert completion.finish_reason in FINISH_REASONS
            if completion.tokens is not None:
                assert completion.tokens.dtype == np.int64
                assert completion.tokens.ndim == 1
                assert len(completion.tokens) > 0
            if completion.usage is not None:
                assert completion.usage.prompt_tokens > 0
                assert 0 <= completion.usage.completion_tokens <= params.max_tokens
                if completion.tokens is not None:
                    assert completion.usage.completion_tokens == len(completion.tokens)

    def test_a_completion_ends_at_max_tokens_and_says_so(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """There are never more than `max_tokens` tokens; a completion that was cut has exactly as
        many, begins as the uncut one does, and its finish reason is "length".

        Usually broken by an end token that is counted or not, and by a finish reason that is
        always "stop", which makes a truncated answer look like a whole one.
        """
        whole = completer.complete(asked, greedy)
        size = count(whole)
        assert size <= greedy.max_tokens
        if whole.finish_reason == "length":
            assert size == greedy.max_tokens
        if size < 2:
            pytest.skip("the model says a single token, which cannot be cut")
        for limit in sorted({1, size // 2, size - 1}):
            cut = completer.complete(asked, replace(greedy, max_tokens=limit))
            assert count(cut) == limit
            assert cut.finish_reason == "length"
            assert whole.text.startswith(cut.text.rstrip("\ufffd"))  # half a character
            if cut.tokens is not None and whole.tokens is not None:
                assert cut.tokens.tolist() == whole.tokens[:limit].tolist()

    def test_complete_wants_one_completion(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """`complete` and `stream_complete` of `n` above 1 are `InvalidInput`: there is one to
        return.

        Usually broken by returning the first of several, which were all paid for.
        """
        refuses(InvalidInput, completer.complete, asked, replace(sampling, n=2))
        if completer.supports("stream_complete"):
            refuses(InvalidInput, completer.stream_complete, asked, replace(sampling, n=2))

    def test_a_prompt_is_left_as_it_was(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """No call changes the prompt that it was given: it may be of a data set, and asked again.

        Usually broken by appending the system's message, or the answer, to the caller's list.
        """
        before = copy.deepcopy(asked)
        completer.complete(asked, sampling)
        completer.complete_batch([asked, asked], sampling)
        if completer.supports("stream_complete"):
            list(completer.stream_complete(asked, sampling))
        assert asked == before
