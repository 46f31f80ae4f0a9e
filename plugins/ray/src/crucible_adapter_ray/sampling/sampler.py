"""From prompts to completions and scores: cut the work, ask the actors, join what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from crucible_kitchen import (
    AdapterError,
    Completion,
    CompletionChunk,
    FloatArray,
    InvalidInput,
    Prompt,
    SamplingParams,
    Tokenizer,
    Unavailable,
)

from .fleet import Fleet
from .options import CompleterOptions
from .parts import parts, size
from .wanted import Wanted, wanted


class Sampler:
    """Asks a fleet, which it starts. Thread-safe."""

    def __init__(self, opts: CompleterOptions) -> None:
        self._fleet = Fleet(opts)

    def complete(self, prompt: Prompt, params: SamplingParams) -> Completion:
        answer: Completion = self._fleet.call("complete", wanted(params.model), prompt, params)
        return answer

    def complete_batch(
        self, prompts: Sequence[Prompt], params: SamplingParams
    ) -> list[Completion | AdapterError]:
        where = wanted(params.model)
        cut = parts([1] * (len(prompts) * params.n), self._fleet.size)
        answers: list[Completion | AdapterError]
        if len(cut) < 2:
            answers = self._fleet.call("complete_batch", where, prompts, params)
            return answers
        said = self._fleet.call_each(
            "complete_batch",
            [
                (where, [prompts[k // params.n] for k in part], _from(params, part.start))
                for part in cut
            ],
        )
        lost = [each for each in said if isinstance(each, AdapterError)]
        # What an actor took with it when it died is lost, and nothing else.
        if len(lost) == len(said) or not all(isinstance(each, Unavailable) for each in lost):
            raise lost[0]
        answers = []
        for part, each in zip(cut, said, strict=True):
            answers += [each] * len(part) if isinstance(each, AdapterError) else each
        return answers

    def stream(self, prompt: Prompt, params: SamplingParams) -> Iterator[CompletionChunk]:
        return self._fleet.stream("stream", wanted(params.model), prompt, params)

    def score(self, sequences: Sequence[Prompt], model: str | None) -> list[FloatArray]:
        where = wanted(model)
        cut = parts([*map(size, sequences)], self._fleet.size)
        if len(cut) < 2:
            return self._score(where, sequences)
        said = self._fleet.call_each(
            "score", [(where, [sequences[k] for k in part]) for part in cut]
        )
        for each in said:
            if isinstance(each, InvalidInput):
                # It counts from the beginning of its part. One that is given all counts right, and
                # refuses them before it computes anything.
                return self._score(where, sequences)
            if isinstance(each, AdapterError):
                raise each
        return [logprobs for each in said for logprobs in each]

    def _score(self, where: Wanted, sequences: Sequence[Prompt]) -> list[FloatArray]:
        scores: list[FloatArray] = self._fleet.call("score", where, sequences)
        return scores

    def tokenizer(self, model: str | None) -> Tokenizer:
        found: Tokenizer = self._fleet.call("tokenizer", wanted(model))
        return found

    def close(self) -> None:
        self._fleet.close()


def _from(params: SamplingParams, start: int) -> SamplingParams:
    """Return parameters for the results from `start` on, one for each prompt."""
    return replace(params, n=1, seed=None if params.seed is None else params.seed + start)
