"""Completers with one fault each."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    Completer,
    Completion,
    InvalidInput,
    Prompt,
    SamplingParams,
    Usage,
    hookimpl,
)
from crucible_kitchen.types import CompletionChunk, FloatArray

from kitchen_noop import CharTokenizer

from . import Mutant, sampling

Results = list[Completion | AdapterError]
TOKENIZER = CharTokenizer()


class Options(AdapterOptions):
    inner: Completer


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


def changed(completion: Completion, **fields: Any) -> Completion:
    return dataclasses.replace(completion, **fields)


# --- batches ---


class ChangedBatch(Delegate):
    """The base of the mutants whose batches are wrong."""

    @hookimpl
    def complete_batch(
        self, opts: Options, prompts: Sequence[Prompt], params: SamplingParams
    ) -> Results:
        return self.batch(opts.inner, prompts, params)

    def batch(self, inner: Completer, prompts: Sequence[Prompt], params: SamplingParams) -> Results:
        return inner.complete_batch(prompts, params)


def one_by_one(
    inner: Completer, prompts: Sequence[Prompt], params: SamplingParams, seeds: Sequence[int | None]
) -> Results:
    """Complete each prompt `params.n` times, result k with the k-th of the seeds."""
    results: Results = []
    for k, seed in enumerate(seeds):
        one = replace(params, n=1, seed=seed)
        results += inner.complete_batch([prompts[k // params.n]], one)
    return results


class HasOneSeedForABatch(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        return one_by_one(inner, prompts, params, [params.seed] * (len(prompts) * params.n))


class HasOneSeedForAPrompt(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        if params.seed is None:
            return inner.complete_batch(prompts, params)
        seeds = [params.seed + k // params.n for k in range(len(prompts) * params.n)]
        return one_by_one(inner, prompts, params, seeds)


class CountsSeedsAnewForEachPrompt(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        if params.seed is None:
            return inner.complete_batch(prompts, params)
        seeds = [params.seed + k % params.n for k in range(len(prompts) * params.n)]
        return one_by_one(inner, prompts, params, seeds)


class IsSampleMajor(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        results = inner.complete_batch(prompts, params)
        return [result for sample in range(params.n) for result in results[sample :: params.n]]


class IgnoresN(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        return inner.complete_batch(prompts, replace(params, n=1))


class SwapsTwoResults(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        results = inner.complete_batch(prompts, params)
        if len(results) > 3:
            results[2], results[3] = results[3], results[2]
        return results


class ABadItemLosesTheRest(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        results = inner.complete_batch(prompts, params)
        for result in results:
            if isinstance(result, AdapterError):
                raise result
        return results


class LeavesABadItemOut(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        results = inner.complete_batch(prompts, params)
        return [result for result in results if not isinstance(result, AdapterError)]


class ABadItemIsNone(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        results: list[Any] = inner.complete_batch(prompts, params)
        nothing: Any = None
        return [nothing if isinstance(result, AdapterError) else result for result in results]


class FailsOnAnEmptyBatch(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        max(map(len, prompts))
        return inner.complete_batch(prompts, params)


class LooksAtTheFirstPromptAlone(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        if prompts and prompts[0] and isinstance(prompts[0][0], Mapping):
            prompts = [[dict(message) for message in prompt] for prompt in prompts]
        return inner.complete_batch(prompts, params)


class SeedsFromZero(ChangedBatch):
    def batch(self, inner: Completer, prompts: Any, params: SamplingParams) -> Results:
        return inner.complete_batch(prompts, replace(params, seed=params.seed or 0))


# --- one completion ---


class ChangedCompletion(Delegate):
    """The base of the mutants that complete alone, in batches and in streams in one wrong way."""

    @hookimpl
    def complete(self, opts: Options, prompt: Prompt, params: SamplingParams) -> Completion:
        return self.one(opts.inner, prompt, params)

    @hookimpl
    def complete_batch(
        self, opts: Options, prompts: Sequence[Prompt], params: SamplingParams
    ) -> Results:
        results: Results = []
        for prompt in prompts:
            for _ in range(params.n):
                seed = None if params.seed is None else params.seed + len(results)
                try:
                    results.append(self.one(opts.inner, prompt, replace(params, n=1, seed=seed)))
                except AdapterError as error:
                    results.append(error)
        return results

    @hookimpl
    def stream_complete(
        self, opts: Options, prompt: Prompt, params: SamplingParams
    ) -> Iterator[CompletionChunk]:
        whole = self.one(opts.inner, prompt, params)
        yield CompletionChunk(whole.text, whole.tokens, whole.logprobs, whole.finish_reason)

    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, params)


class IgnoresLogprobs(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, replace(params, logprobs=False))


class LeavesOutALogprob(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        return changed(found, logprobs=None if found.logprobs is None else found.logprobs[1:])


class LeavesOutTheLogprobOfTheEnd(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        if found.logprobs is None or found.finish_reason != "stop":
            return found
        return changed(found, logprobs=found.logprobs[:-1])


class GivesLogprobsInFloat64(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        if found.logprobs is None:
            return found
        return changed(found, logprobs=found.logprobs.astype(np.float64))


class GivesProbabilities(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        return changed(found, logprobs=None if found.logprobs is None else np.exp(found.logprobs))


class GivesNaNForALogprobThatTheServerDoesNotSay(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        if found.logprobs is None:
            return found
        unlikely = found.logprobs == found.logprobs.min()
        return changed(found, logprobs=np.where(unlikely, np.float32(np.nan), found.logprobs))


class GivesLogprobsUnasked(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, replace(params, logprobs=True))


class ShiftsLogprobsByOne(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        return changed(
            found, logprobs=None if found.logprobs is None else np.roll(found.logprobs, 1)
        )


class RetokenisesTokenPrompts(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
            text = TOKENIZER.decode(prompt)  # special tokens become text
            return inner.complete(TOKENIZER.encode(text) or prompt, params)
        return inner.complete(prompt, params)


class DropsSpecialTokens(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
            text = TOKENIZER.decode(prompt, skip_special_tokens=True)
            return inner.complete(TOKENIZER.encode(text) or prompt, params)
        return inner.complete(prompt, params)


class AnswersTokensWithText(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return changed(inner.complete(prompt, params), tokens=None, logprobs=None)


class ContextOptions(Options):
    context_length: int = 64


class TruncatesThePrompt(ChangedCompletion):
    Options = ContextOptions

    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        if isinstance(prompt, list) and len(prompt) > 63:
            prompt = prompt[-63:]
        return inner.complete(prompt, params)


class CountsOneTokenTooMany(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, replace(params, max_tokens=params.max_tokens + 1))


class CutsTheTextAlone(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        if found.finish_reason != "length":
            return found
        assert found.tokens is not None
        assert found.usage is not None
        usage = Usage(found.usage.prompt_tokens, found.usage.completion_tokens - 1)
        return changed(found, tokens=found.tokens[:-1], usage=usage)


class AlwaysSaysStop(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return changed(inner.complete(prompt, params), finish_reason="stop")


class AlwaysSaysLength(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return changed(inner.complete(prompt, params), finish_reason="length")


class PassesOnTheServersReason(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        reason: Any = "max_tokens" if found.finish_reason == "length" else found.finish_reason
        return changed(found, finish_reason=reason)


class LeavesTheEndTokenOutOfUsage(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        assert found.usage is not None
        usage = Usage(found.usage.prompt_tokens, found.usage.completion_tokens - 1)
        return changed(found, usage=usage)


class GivesTokensInInt32(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        assert found.tokens is not None
        return changed(found, tokens=found.tokens.astype(np.int32))


class SamplesAtTemperature0(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, replace(params, temperature=params.temperature or 1.0))


class DropsTopK(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, replace(params, top_k=-1))


class DropsTopP(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, replace(params, top_p=1.0))


class DropsTheSeed(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, replace(params, seed=None))


class HasAGeneratorOfItsOwn(ChangedCompletion):
    def __init__(self) -> None:
        self.drawn = itertools.count()

    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        if params.seed is not None:
            params = replace(params, seed=params.seed + next(self.drawn))
        return inner.complete(prompt, params)


class SeedsFromItsAddress(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        if params.seed is not None:
            params = replace(params, seed=params.seed ^ id(inner))
        return inner.complete(prompt, params)


class ChangesThePrompt(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], Mapping):
            prompt.append({"role": "assistant", "content": found.text})
        return found


class SharesAPromptAmongThreads(ChangedCompletion):
    prompt: Prompt = ()

    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        self.prompt = prompt
        inner.complete([1], SamplingParams(1))  # takes a while, in which others come
        return inner.complete(self.prompt, params)


# --- stops ---


class IgnoresStop(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, replace(params, stop=params.stop and None))


class KeepsTheStopString(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        assert found.tokens is not None
        text = TOKENIZER.decode(found.tokens.tolist(), skip_special_tokens=True)
        return changed(found, text=text)


class CutsTheTextButGeneratesOn(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        whole = inner.complete(prompt, replace(params, stop=params.stop and None))
        return changed(found, tokens=whole.tokens, logprobs=whole.logprobs, usage=whole.usage)


class TakesTheFirstStopAlone(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, replace(params, stop=params.stop and params.stop[:1]))


class LosesWhatItHeldBack(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        found = inner.complete(prompt, params)
        for stop in params.stop or ():
            for size in range(1, len(str(stop))):
                if isinstance(stop, str) and found.text.endswith(stop[:size]):
                    return changed(found, text=found.text.removesuffix(stop[:size]))
        return found


class AStopReplacesTheEndToken(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        if not (params.stop and isinstance(params.stop[0], str)):
            return inner.complete(prompt, params)
        whole = inner.complete(prompt, replace(params, stop=()))
        cut = min((whole.text.find(str(stop)) for stop in params.stop), default=-1)
        return whole if cut < 0 else inner.complete(prompt, params)


class SendsStopTokensAsText(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        if params.stop and not isinstance(params.stop[0], str):
            params = replace(params, stop=tuple(str(stop) for stop in params.stop))
        return inner.complete(prompt, params)


class TakesAnEmptyStopForNone(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return inner.complete(prompt, replace(params, stop=params.stop or None))


class RendersWhatIsNoMessage(ChangedCompletion):
    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        rendered: Any = prompt
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], Mapping):
            rendered = [
                {"role": str(m.get("role", "")), "content": str(m.get("content", ""))}
                if isinstance(m, Mapping)
                else m
                for m in prompt
            ]
        return inner.complete(rendered, params)


# --- streams ---


class DropsTheLastPiece(Delegate):
    @hookimpl
    def stream_complete(
        self, opts: Options, prompt: Prompt, params: SamplingParams
    ) -> Iterator[CompletionChunk]:
        for chunk in opts.inner.stream_complete(prompt, params):
            if chunk.finish_reason is None:
                yield chunk
            else:
                yield CompletionChunk("", chunk.tokens, chunk.logprobs, chunk.finish_reason)


class StreamsWithoutAReason(Delegate):
    @hookimpl
    def stream_complete(
        self, opts: Options, prompt: Prompt, params: SamplingParams
    ) -> Iterator[CompletionChunk]:
        for chunk in opts.inner.stream_complete(prompt, params):
            yield CompletionChunk(chunk.text, chunk.tokens, chunk.logprobs)


class StreamsWithAnotherSeed(Delegate):
    @hookimpl
    def stream_complete(
        self, opts: Options, prompt: Prompt, params: SamplingParams
    ) -> Iterator[CompletionChunk]:
        seed = None if params.seed is None else params.seed + 1
        yield from opts.inner.stream_complete(prompt, replace(params, seed=seed))


class StreamsTheStopString(Delegate):
    @hookimpl
    def stream_complete(
        self, opts: Options, prompt: Prompt, params: SamplingParams
    ) -> Iterator[CompletionChunk]:
        for chunk in opts.inner.stream_complete(prompt, params):
            assert chunk.tokens is not None
            text = TOKENIZER.decode(chunk.tokens.tolist(), skip_special_tokens=True)
            yield CompletionChunk(text, chunk.tokens, chunk.logprobs, chunk.finish_reason)


class StreamsNaNForTheFirstLogprob(Delegate):
    @hookimpl
    def stream_complete(
        self, opts: Options, prompt: Prompt, params: SamplingParams
    ) -> Iterator[CompletionChunk]:
        for index, chunk in enumerate(opts.inner.stream_complete(prompt, params)):
            if index == 0 and chunk.logprobs is not None:
                chunk = dataclasses.replace(chunk, logprobs=np.full_like(chunk.logprobs, np.nan))
            yield chunk


class StreamsTheAnswerWithoutItsReasoning(ChangedCompletion):
    """Its server reasons, and the reasoning comes with whole answers alone."""

    def one(self, inner: Completer, prompt: Prompt, params: SamplingParams) -> Completion:
        return changed(inner.complete(prompt, params), reasoning="Let me think.")


class RunsOutOfStreams(Delegate):
    def __init__(self) -> None:
        self.free = threading.BoundedSemaphore(8)

    @hookimpl
    def stream_complete(
        self, opts: Options, prompt: Prompt, params: SamplingParams
    ) -> Iterator[CompletionChunk]:
        if not self.free.acquire(blocking=False):
            raise OSError("no connection is free")
        yield from opts.inner.stream_complete(prompt, params)
        self.free.release()


# --- scores ---


class ChangedScore(Delegate):
    """The base of the mutants that score."""

    @hookimpl
    def score(
        self, opts: Options, sequences: Sequence[Prompt], model: str | None
    ) -> list[FloatArray]:
        return self.scores(opts.inner, list(sequences), model)

    def scores(self, inner: Completer, sequences: Any, model: str | None) -> list[FloatArray]:
        return inner.score(sequences, model)


class ScoresTheFirstTokenToo(ChangedScore):
    def scores(self, inner: Completer, sequences: Any, model: str | None) -> list[FloatArray]:
        zero = np.zeros(1, np.float32)
        return [np.concatenate([zero, each]) for each in inner.score(sequences, model)]


class ShiftsScoresByOne(ChangedScore):
    def scores(self, inner: Completer, sequences: Any, model: str | None) -> list[FloatArray]:
        return [np.roll(each, 1) for each in inner.score(sequences, model)]


class SortsScoresByLength(ChangedScore):
    def scores(self, inner: Completer, sequences: Any, model: str | None) -> list[FloatArray]:
        if all(isinstance(each, list) for each in sequences):
            sequences = sorted(sequences, key=len)
        return inner.score(sequences, model)


class PadsOnTheLeft(ChangedScore):
    def scores(self, inner: Completer, sequences: Any, model: str | None) -> list[FloatArray]:
        good = inner.score(sequences, model)
        if not all(isinstance(each, list) for each in sequences):
            return good
        width = max(map(len, sequences), default=0)
        padded = inner.score([[0] * (width - len(each)) + each for each in sequences], model)
        return [row[len(row) - len(right) :] for row, right in zip(padded, good, strict=True)]


class ScoresInFloat64(ChangedScore):
    def scores(self, inner: Completer, sequences: Any, model: str | None) -> list[FloatArray]:
        return [each.astype(np.float64) for each in inner.score(sequences, model)]


class LeavesOutABadSequence(ChangedScore):
    def scores(self, inner: Completer, sequences: Any, model: str | None) -> list[FloatArray]:
        scores = []
        for sequence in sequences:
            try:
                scores += inner.score([sequence], model)
            except InvalidInput:
                continue
        return scores


MUTANTS = [
    Mutant("completer", adapter, f"test_{killed_by}")
    for adapter, killed_by in (
        (HasOneSeedForABatch(), "result_k_of_a_batch_is_sampled_with_seed_plus_k"),
        (HasOneSeedForAPrompt(), "result_k_of_a_batch_is_sampled_with_seed_plus_k"),
        (CountsSeedsAnewForEachPrompt(), "result_k_of_a_batch_is_sampled_with_seed_plus_k"),
        (IsSampleMajor(), "a_batch_is_prompt_major"),
        (IgnoresN(), "a_batch_is_prompt_major"),
        (SwapsTwoResults(), "a_batch_is_prompt_major"),
        (ABadItemLosesTheRest(), "a_bad_item_does_not_lose_the_rest"),
        (LeavesABadItemOut(), "a_bad_item_does_not_lose_the_rest"),
        (ABadItemIsNone(), "a_bad_item_does_not_lose_the_rest"),
        (FailsOnAnEmptyBatch(), "an_empty_batch_has_no_results"),
        (LooksAtTheFirstPromptAlone(), "a_batch_may_hold_prompts_of_every_kind"),
        (SeedsFromZero(), "without_a_seed_it_is_unpredictable"),
        (IgnoresLogprobs(), "logprobs_are_given_or_refused"),
        (GivesLogprobsUnasked(), "logprobs_are_given_or_refused"),
        (LeavesOutALogprob(), "there_is_one_logprob_for_each_token"),
        (LeavesOutTheLogprobOfTheEnd(), "there_is_one_logprob_for_each_token"),
        (GivesLogprobsInFloat64(), "there_is_one_logprob_for_each_token"),
        (GivesProbabilities(), "there_is_one_logprob_for_each_token"),
        (
            GivesNaNForALogprobThatTheServerDoesNotSay(),
            "there_is_one_logprob_for_each_token",
        ),
        (ShiftsLogprobsByOne(), "logprobs_are_what_score_returns"),
        (RetokenisesTokenPrompts(), "token_ids_are_never_turned_into_text"),
        (DropsSpecialTokens(), "token_ids_are_never_turned_into_text"),
        (AnswersTokensWithText(), "token_ids_in_any_form_are_one_prompt"),
        (CountsOneTokenTooMany(), "a_completion_ends_at_max_tokens_and_says_so"),
        (CutsTheTextAlone(), "a_completion_ends_at_max_tokens_and_says_so"),
        (AlwaysSaysStop(), "a_completion_ends_at_max_tokens_and_says_so"),
        (AlwaysSaysLength(), "a_stop_string_ends_the_completion"),
        (PassesOnTheServersReason(), "a_completion_says_what_why_and_how_much"),
        (LeavesTheEndTokenOutOfUsage(), "a_completion_says_what_why_and_how_much"),
        (GivesTokensInInt32(), "a_completion_says_what_why_and_how_much"),
        (SamplesAtTemperature0(), "temperature_0_is_greedy"),
        (DropsTopK(), "sampling_from_one_token_is_greedy_or_refused"),
        (DropsTopP(), "sampling_from_one_token_is_greedy_or_refused"),
        (DropsTheSeed(), "a_seed_decides_what_is_sampled"),
        (HasAGeneratorOfItsOwn(), "a_seed_decides_what_is_sampled"),
        (SeedsFromItsAddress(), "a_seed_decides_what_is_sampled"),
        (ChangesThePrompt(), "a_prompt_is_left_as_it_was"),
        (IgnoresStop(), "a_stop_string_ends_the_completion"),
        (KeepsTheStopString(), "a_stop_string_ends_the_completion"),
        (CutsTheTextButGeneratesOn(), "a_stop_string_ends_the_completion"),
        (TakesTheFirstStopAlone(), "a_stop_string_ends_the_completion"),
        (LosesWhatItHeldBack(), "a_stop_string_that_does_not_come_changes_nothing"),
        (AStopReplacesTheEndToken(), "a_stop_string_that_does_not_come_changes_nothing"),
        (SendsStopTokensAsText(), "a_stop_token_ends_the_completion"),
        (TakesAnEmptyStopForNone(), "an_empty_stop_stops_at_nothing"),
        (RendersWhatIsNoMessage(), "what_is_no_prompt_is_refused"),
        (DropsTheLastPiece(), "a_stream_adds_up_to_the_completion"),
        (StreamsWithoutAReason(), "a_stream_adds_up_to_the_completion"),
        (StreamsTheStopString(), "a_stream_adds_up_to_the_completion"),
        (StreamsWithAnotherSeed(), "any_stream_adds_up_to_the_completion_of_its_seed"),
        (StreamsNaNForTheFirstLogprob(), "a_stream_adds_up_to_the_completion"),
        (StreamsTheAnswerWithoutItsReasoning(), "a_stream_adds_up_to_the_completion"),
        (RunsOutOfStreams(), "a_stream_may_be_left_early"),
        (ScoresTheFirstTokenToo(), "a_score_is_a_logprob_for_each_token_after_the_first"),
        (ScoresInFloat64(), "a_score_is_a_logprob_for_each_token_after_the_first"),
        (ShiftsScoresByOne(), "a_score_depends_on_what_comes_before"),
        (SortsScoresByLength(), "a_score_does_not_depend_on_its_batch"),
        (PadsOnTheLeft(), "a_score_does_not_depend_on_its_batch"),
        (LeavesOutABadSequence(), "what_cannot_be_scored_is_refused"),
    )
]
MUTANTS += [
    Mutant(
        "completer",
        TruncatesThePrompt(),
        "test_a_prompt_beyond_the_context_is_refused",
        inner={"use": "noop", "latency_scale": 0, "context_length": 64},
    ),
    Mutant(
        "completer",
        SharesAPromptAmongThreads(),
        "test_many_threads_complete_at_once",
        inner={"use": "noop", "latency_scale": 0.1},  # requests that overlap
    ),
]
MUTANTS += sampling.MUTANTS
