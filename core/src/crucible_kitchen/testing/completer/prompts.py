"""What is a prompt, and what is not."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ...errors import InvalidInput, NotFound, Unsupported
from ...ports import Completer
from ...types import Completion, ModelInput, SamplingParams
from ..conformance import unless_synthetic
from ..refusal import refuses
from .bad_prompts import BAD_PROMPTS
from .comparison import completions, count, same, token_ids, tokens
from .fixtures import CompleterFixtures


class Prompts(CompleterFixtures):
    """Messages, token ids, models."""

    def test_token_ids_in_any_form_are_one_prompt(
        self, completer: Completer, ids: list[int] | None, greedy: SamplingParams
    ) -> None:
        """A list, a tuple, an array and a `ModelInput` of the same token ids are the same prompt;
        token ids come back.

        Usually broken by `if prompt`, which an array refuses, and by JSON, which knows no int64.
        """
        given = token_ids(ids)
        array = np.asarray(given)
        forms: list[Any] = [given, tuple(given), array, list(array), ModelInput.from_ints(given)]
        found = [completer.complete(form, greedy) for form in forms]
        found += completions(completer.complete_batch(forms, greedy))
        assert found[0].tokens is not None
        for each in found:
            same(each, found[0], self.tolerance)

    def test_token_ids_are_never_turned_into_text(
        self, completer: Completer, ids: list[int] | None, greedy: SamplingParams
    ) -> None:
        """The model reads exactly the token ids that it was given, special ones among them: they
        are as many, and one more or less makes another prompt.

        Usually broken by a server that decodes and encodes again: two ids may become one, special
        tokens are dropped or added, and training on the ids is then training on another prompt.
        """
        given = token_ids(ids)
        for sequence in ([given[0]], given, given[::-1], [each for each in given for _ in "12"]):
            completion = completer.complete(sequence, greedy)
            if completion.usage is not None:
                assert completion.usage.prompt_tokens == len(sequence)
            if completer.supports("score"):
                [score] = completer.score([sequence], greedy.model)
                assert score.shape == (len(sequence) - 1,)

    @unless_synthetic
    def test_a_completion_that_was_cut_is_continued_by_its_tokens(
        self, completer: Completer, ids: list[int] | None, greedy: SamplingParams
    ) -> None:
        """The prompt with the first generated tokens is continued by those that followed: the ids
        that come out are those that the model reads when they go in.

        Usually broken by ids that are made from the text.
        """
        given = token_ids(ids)
        whole = tokens(completer.complete(given, greedy))
        for size in range(1, len(whole)):
            shorter = replace(greedy, max_tokens=len(whole) - size)
            again = completer.complete([*given, *whole[:size]], shorter)
            assert tokens(again) == whole[size:]

    def test_a_batch_may_hold_prompts_of_every_kind(
        self,
        completer: Completer,
        conversation: Sequence[Any] | None,
        ids: list[int] | None,
        greedy: SamplingParams,
    ) -> None:
        """Messages, token ids and a `ModelInput` may be asked in one batch.

        Usually broken by looking at the first prompt to see what all are.
        """
        given = token_ids(ids)
        if conversation is None:
            pytest.skip("the adapter takes no messages")
        prompts: list[Any] = [conversation, given, ModelInput.from_ints(given), conversation]
        results = completions(completer.complete_batch(prompts, greedy))
        for prompt, result in zip(prompts, results, strict=True):
            same(result, completer.complete(prompt, greedy), self.tolerance)

    @pytest.mark.parametrize("what", BAD_PROMPTS)
    def test_what_is_no_prompt_is_refused(
        self,
        completer: Completer,
        conversation: Sequence[Any] | None,
        ids: list[int] | None,
        sampling: SamplingParams,
        what: str,
    ) -> None:
        """What is neither messages, each with a role and content that are text, nor token ids, is
        `InvalidInput`, from every callback.

        Usually broken by a chat template, which renders a missing content as nothing, and a role
        that is a number as its digits.
        """
        kind, bad = copy.deepcopy(BAD_PROMPTS[what])  # an adapter may change it
        taken = {"messages": conversation is not None, "tokens": ids is not None}
        # Of a kind that it cannot take at all, an adapter may say that.
        expected = InvalidInput if taken.get(kind, True) else (InvalidInput, Unsupported)
        refuses(expected, completer.complete, bad, sampling)
        [result] = completer.complete_batch([bad], sampling)
        assert isinstance(result, expected)
        if completer.supports("stream_complete"):
            refuses(expected, completer.stream_complete, bad, sampling)

    def test_a_prompt_beyond_the_context_is_refused(
        self,
        completer: Completer,
        conversation: Sequence[Any] | None,
        ids: list[int] | None,
        sampling: SamplingParams,
        context_length: int | str | None,
    ) -> None:
        """A prompt that leaves no room for an answer is `InvalidInput`, from every callback, and
        fails no other of its batch; one that leaves room for one token is answered with one.

        Usually broken by a server that cuts off the beginning: the question, or the system's
        message, is silently gone.
        """
        context = self.given(
            None if context_length is None else int(context_length), "context_length"
        )
        short = replace(sampling, max_tokens=1)
        long: list[Any] = []
        if ids is not None:
            long += [(ids * context)[:size] for size in (context, context + 100)]
            fits = completer.complete((ids * context)[: context - 1], short)
            assert count(fits) == 1
        if conversation is not None:
            long.append([*conversation[:-1], {**conversation[-1], "content": "word " * context}])
        for prompt in long:
            refuses(InvalidInput, completer.complete, prompt, short)
            asked = conversation or ids
            results = completer.complete_batch([asked, prompt, asked], short)  # type: ignore[list-item]
            assert [type(each) for each in results] == [Completion, InvalidInput, Completion]
            if completer.supports("stream_complete"):
                refuses(InvalidInput, completer.stream_complete, prompt, short)
        if ids is not None and completer.supports("score"):
            refuses(
                InvalidInput, completer.score, [ids, (ids * context)[: context + 2]], sampling.model
            )

    def test_an_unknown_model_is_not_found(
        self,
        completer: Completer,
        asked: Any,
        sampling: SamplingParams,
        missing_model: str | None,
    ) -> None:
        """A model that the backend does not have is `NotFound`, from every callback, of a batch
        for the whole or for each item.

        Usually broken by answering with the default model, which goes unnoticed.
        """
        missing = replace(sampling, model=self.given(missing_model, "missing_model"))
        refuses(NotFound, completer.complete, asked, missing)
        with contextlib.suppress(NotFound):
            results = completer.complete_batch([asked, asked], missing)
            assert [type(each) for each in results] == [NotFound, NotFound]
        if completer.supports("stream_complete"):
            refuses(NotFound, completer.stream_complete, asked, missing)
        if completer.supports("score"):
            refuses(NotFound, completer.score, [[1, 2, 3]], missing.model)
