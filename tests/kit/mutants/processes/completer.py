"""Completers that are right while one process uses them."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import Any

from crucible_kitchen import AdapterOptions, Completer, Completion, SamplingParams, hookimpl

from .. import Mutant


class Options(AdapterOptions):
    inner: Completer


class Delegate:
    """Base of the mutants: an adapter that leaves everything to `inner`."""

    Options = Options


class OtherSeed(Delegate):
    """Base of mutants that sample by another seed than they are given."""

    def seed(self, prompt: Any, seed: int) -> int:
        raise NotImplementedError

    def params(self, prompt: Any, params: SamplingParams) -> SamplingParams:
        seed = None if params.seed is None else self.seed(prompt, params.seed)
        return replace(params, seed=seed)

    @hookimpl
    def complete(self, opts: Options, prompt: Any, params: SamplingParams) -> Completion:
        return opts.inner.complete(prompt, self.params(prompt, params))

    @hookimpl
    def complete_batch(self, opts: Options, prompts: Any, params: SamplingParams) -> Any:
        return [
            result
            for prompt in prompts
            for result in opts.inner.complete_batch([prompt], self.params(prompt, params))
        ]


class HashesThePrompt(OtherSeed):
    def seed(self, prompt: Any, seed: int) -> int:
        return abs(seed) + hash(str(prompt)) % 10_000


class MixesInTheProcess(OtherSeed):
    def seed(self, prompt: Any, seed: int) -> int:
        return abs(seed) + os.getpid()


class SeedsTheWholeProgram(OtherSeed):
    def seed(self, prompt: Any, seed: int) -> int:
        random.seed(seed)
        return seed


MUTANTS = [
    Mutant("completer", adapter, killed_by)
    for adapter, killed_by in [
        (HashesThePrompt(), "test_another_process_completes_alike"),
        (MixesInTheProcess(), "test_another_process_completes_a_batch_alike"),
        (SeedsTheWholeProgram(), "test_the_process_stays_as_it_was"),
    ]
]
