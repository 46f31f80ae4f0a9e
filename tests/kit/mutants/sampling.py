"""Completers that sample, stop or read wrongly, by one fault each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    Completer,
    Completion,
    EncodedTextChunk,
    ModelInput,
    Prompt,
    SamplingParams,
    hookimpl,
)
from crucible_kitchen.types import CompletionChunk, FloatArray

from . import Mutant, bigram_completer

Results = list[Completion | AdapterError]


class Options(AdapterOptions):
    inner: Completer


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class Asks(Delegate):
    """Base of mutants that ask for something else than they were asked for."""

    def params(self, params: SamplingParams) -> SamplingParams:
        return params

    def prompt(self, prompt: Any) -> Any:
        return prompt

    def shown(self, completion: Completion, prompt: Any, params: SamplingParams) -> Completion:
        return completion

    @hookimpl
    def complete(self, opts: Options, prompt: Prompt, params: SamplingParams) -> Completion:
        found = opts.inner.complete(self.prompt(prompt), self.params(params))
        return self.shown(found, prompt, params)

    @hookimpl
    def complete_batch(
        self, opts: Options, prompts: Sequence[Prompt], params: SamplingParams
    ) -> Results:
        asked = [self.prompt(prompt) for prompt in prompts]
        results = opts.inner.complete_batch(asked, self.params(params))
        each = [prompt for prompt in prompts for _ in range(params.n)]
        return [
            self.shown(found, prompt, params) if isinstance(found, Completion) else found
            for found, prompt in zip(results, each, strict=True)
        ]

    @hookimpl
    def stream_complete(
        self, opts: Options, prompt: Prompt, params: SamplingParams
    ) -> Iterator[CompletionChunk]:
        found = self.complete(opts, prompt, params)
        yield CompletionChunk(found.text, found.tokens, found.logprobs, found.finish_reason)

    @hookimpl
    def score(
        self, opts: Options, sequences: Sequence[Prompt], model: str | None
    ) -> list[FloatArray]:
        return opts.inner.score([self.prompt(each) for each in sequences], model)


class Seeds(Asks):
    """Base of mutants that sample with other seeds."""

    def seed(self, seed: int) -> int:
        return seed

    def params(self, params: SamplingParams) -> SamplingParams:
        return params if params.seed is None else replace(params, seed=self.seed(params.seed))


class FoldsSeedsAt32Bits(Seeds):
    def seed(self, seed: int) -> int:
        return seed % 2**32


class LosesTheSignOfASeed(Seeds):
    def seed(self, seed: int) -> int:
        return abs(seed)


class SendsSeedsAsFloats(Seeds):
    def seed(self, seed: int) -> int:
        return int(float(seed))


class HasOneSeedForAllThreads(Asks):
    def params(self, params: SamplingParams) -> SamplingParams:
        self.seed = params.seed
        time.sleep(0.001)  # what others do meanwhile
        return replace(params, seed=self.seed)


class MixesTheLengthIntoTheSeed(Asks):
    def params(self, params: SamplingParams) -> SamplingParams:
        seed = params.seed
        return params if seed is None else replace(params, seed=seed + 1000 * params.max_tokens)


class SamplesAnewForLogprobs(Asks):
    def params(self, params: SamplingParams) -> SamplingParams:
        if params.seed is None or not params.logprobs:
            return params
        return replace(params, seed=params.seed + 1000)


class CountsSeedsAnewInEachPart(Asks):
    @hookimpl
    def complete_batch(
        self, opts: Options, prompts: Sequence[Prompt], params: SamplingParams
    ) -> Results:
        parts = [prompts[start : start + 32] for start in range(0, len(prompts), 32)]
        return [each for part in parts for each in opts.inner.complete_batch(part, params)]


class CountsSeedsOfGoodResults(Asks):
    @hookimpl
    def complete_batch(
        self, opts: Options, prompts: Sequence[Prompt], params: SamplingParams
    ) -> Results:
        results: Results = []
        for prompt in prompts:
            good = sum(isinstance(each, Completion) for each in results)
            seed = None if params.seed is None else params.seed + good
            results += opts.inner.complete_batch([prompt], replace(params, seed=seed))
        return results


class TakesFourStops(Asks):
    def params(self, params: SamplingParams) -> SamplingParams:
        return replace(params, stop=params.stop and params.stop[:4])


class TakesTheFirstStopOfItsList(Asks):
    """It generates on, and cuts at the first of the list that it finds."""

    def params(self, params: SamplingParams) -> SamplingParams:
        strings = params.stop and isinstance(params.stop[0], str)
        return replace(params, stop=None) if strings else params

    def shown(self, completion: Completion, prompt: Any, params: SamplingParams) -> Completion:
        for stop in params.stop or ():
            if isinstance(stop, str) and stop in completion.text:
                text = completion.text[: completion.text.index(stop)]
                return replace(completion, text=text, finish_reason="stop")
        return completion


class FoldsTheCaseOfStops(TakesTheFirstStopOfItsList):
    def shown(self, completion: Completion, prompt: Any, params: SamplingParams) -> Completion:
        for stop in params.stop or ():
            if isinstance(stop, str) and (at := completion.text.lower().find(stop.lower())) >= 0:
                return replace(completion, text=completion.text[:at], finish_reason="stop")
        return completion


class LooksForStopsInThePrompt(Asks):
    def shown(self, completion: Completion, prompt: Any, params: SamplingParams) -> Completion:
        read = str(prompt)
        if any(isinstance(stop, str) and stop in read for stop in params.stop or ()):
            return replace(completion, text="", finish_reason="stop")
        return completion


class LooksAtTheLengthFirst(Asks):
    def shown(self, completion: Completion, prompt: Any, params: SamplingParams) -> Completion:
        assert completion.tokens is not None
        full = len(completion.tokens) == params.max_tokens
        return replace(completion, finish_reason="length") if full else completion


class StripsItsText(Asks):
    def shown(self, completion: Completion, prompt: Any, params: SamplingParams) -> Completion:
        return replace(completion, text=completion.text.strip())


class ReadsTheFirstChunk(Asks):
    def prompt(self, prompt: Any) -> Any:
        if isinstance(prompt, ModelInput) and len(prompt.chunks) > 1:
            return ModelInput(prompt.chunks[:1])
        return prompt


class SkipsImages(Asks):
    def prompt(self, prompt: Any) -> Any:
        if isinstance(prompt, ModelInput):
            return ModelInput(tuple(c for c in prompt.chunks if isinstance(c, EncodedTextChunk)))
        return prompt


def _is_messages(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and all(_is_message(each) for each in prompt)


def _is_message(each: Any) -> bool:
    return isinstance(each, dict) and isinstance(each.get("content"), str) and "role" in each


class ReadsTheLastMessage(Asks):
    def prompt(self, prompt: Any) -> Any:
        return prompt[-1:] if _is_messages(prompt) else prompt


class DropsTheSystemsMessage(Asks):
    def prompt(self, prompt: Any) -> Any:
        if not _is_messages(prompt):
            return prompt
        return [each for each in prompt if each["role"] != "system"]


class DropsWhatIsNotAscii(Asks):
    def prompt(self, prompt: Any) -> Any:
        if not _is_messages(prompt):
            return prompt
        return [
            {**each, "content": each["content"].encode("ascii", "ignore").decode()}
            for each in prompt
        ]


class DropsTheTemperature(Asks):
    def params(self, params: SamplingParams) -> SamplingParams:
        return replace(params, temperature=1.0) if params.temperature else params


class TakesOneMoreThanTopK(Asks):
    def params(self, params: SamplingParams) -> SamplingParams:
        return replace(params, top_k=params.top_k + 1) if params.top_k > 1 else params


class ReachesBeyondTopP(Asks):
    def params(self, params: SamplingParams) -> SamplingParams:
        return replace(params, top_p=min(1.0, 1.5 * params.top_p))


class TakesAnUnknownTokenForZero(Asks):
    def prompt(self, prompt: Any) -> Any:
        if isinstance(prompt, list) and all(isinstance(each, int) for each in prompt):
            return [each if each < 2**31 else 0 for each in prompt]
        return prompt


NOOP = {"use": "noop", "latency_scale": 0}
BIGRAM = {"use": bigram_completer}

SEED = "every_integer_is_a_seed_of_its_own"
ELSE = "what_else_is_asked_for_does_not_change_what_is_sampled"
FIRST = "the_first_stop_string_in_the_text_ends_it"
LETTERS = "a_stop_string_is_met_in_the_answer_and_letter_by_letter"
MESSAGES = "every_message_is_read"
BOUNDS = "top_k_and_top_p_bound_what_is_sampled"

MUTANTS = [
    Mutant("completer", adapter, f"test_{killed_by}", inner)
    for inner, faults in (
        (
            NOOP,
            (
                (FoldsSeedsAt32Bits(), SEED),
                (LosesTheSignOfASeed(), SEED),
                (SendsSeedsAsFloats(), SEED),
                (HasOneSeedForAllThreads(), "a_seed_counts_under_threads"),
                (
                    MixesTheLengthIntoTheSeed(),
                    ELSE,
                ),
                (
                    SamplesAnewForLogprobs(),
                    ELSE,
                ),
                (CountsSeedsAnewInEachPart(), "a_large_batch_is_what_its_items_are_alone"),
                (CountsSeedsOfGoodResults(), "a_bad_item_does_not_shift_the_seeds_of_others"),
                (TakesFourStops(), FIRST),
                (TakesTheFirstStopOfItsList(), FIRST),
                (FoldsTheCaseOfStops(), LETTERS),
                (
                    LooksForStopsInThePrompt(),
                    LETTERS,
                ),
                (LooksAtTheLengthFirst(), "a_stop_at_the_last_token_is_a_stop"),
                (StripsItsText(), "white_space_before_a_stop_string_stays"),
                (ReadsTheFirstChunk(), "tokens_in_several_chunks_are_one_prompt"),
                (SkipsImages(), "an_image_counts_or_is_refused"),
                (ReadsTheLastMessage(), MESSAGES),
                (DropsTheSystemsMessage(), MESSAGES),
                (DropsWhatIsNotAscii(), MESSAGES),
            ),
        ),
        (
            BIGRAM,
            (
                (DropsTheTemperature(), "the_temperature_counts"),
                (TakesOneMoreThanTopK(), BOUNDS),
                (ReachesBeyondTopP(), BOUNDS),
                (TakesAnUnknownTokenForZero(), "a_token_of_no_vocabulary_is_refused"),
            ),
        ),
    )
    for adapter, killed_by in faults
]
