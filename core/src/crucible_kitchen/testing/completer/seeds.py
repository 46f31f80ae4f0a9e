"""Greedy completions, and seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ...errors import Unsupported
from ...ports import Completer
from ...types import SamplingParams
from ..conformance import Reopen
from .comparison import completions, key, offered, same
from .fixtures import CompleterFixtures


class Seeds(CompleterFixtures):
    """What decides what is sampled."""

    def test_temperature_0_is_greedy(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """At temperature 0 the completion is the same each time, whatever the seed, and so are all
        of a batch.

        Usually broken by a server that takes 0 for "not set" and samples with its default.
        """
        first = completer.complete(asked, greedy)
        same(completer.complete(asked, greedy), first)
        with offered("a seed"):
            for seed in (1, 2, 3):
                same(completer.complete(asked, replace(greedy, seed=seed)), first)
        for each in completions(completer.complete_batch([asked], replace(greedy, n=3))):
            same(each, first)

    @pytest.mark.parametrize("field", ["top_k", "top_p"])
    def test_sampling_from_one_token_is_greedy_or_refused(
        self, completer: Completer, asked: Any, greedy: SamplingParams, field: str
    ) -> None:
        """With `top_k=1`, and with a `top_p` that one token reaches, a completion is the greedy
        one; an adapter that cannot honour the field says `Unsupported`.

        Usually broken by a field that the server does not know, and drops without a word.
        """
        narrow = {"top_k": 1} if field == "top_k" else {"top_p": 1e-6}
        best = completer.complete(asked, greedy)
        for _ in range(3):
            try:
                found = completer.complete(asked, replace(greedy, temperature=1.0, **narrow))
            except Unsupported:  # it says so, which is the other half of the promise
                return
            same(found, best)

    def test_a_seed_decides_what_is_sampled(
        self,
        completer: Completer,
        asked: Any,
        sampling: SamplingParams,
        reopen: Reopen[Completer] | None,
    ) -> None:
        """The same prompt with the same seed is completed alike, by another process too; other
        seeds give other completions.

        Usually broken by a generator that lives on between calls, and by `hash`, which differs
        from process to process.
        """
        seeded = [replace(sampling, seed=seed) for seed in range(20, 28)]
        with offered("a seed"):
            first = [completer.complete(asked, params) for params in seeded]
        assert len({key(each) for each in first}) > 1, "eight seeds gave one completion"
        for params, each in reversed(list(zip(seeded, first, strict=True))):
            same(completer.complete(asked, params), each)
        if reopen is not None:
            with reopen() as other:
                for params, each in zip(seeded, first, strict=True):
                    same(other.complete(asked, params), each)

    def test_without_a_seed_it_is_unpredictable(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Without a seed the completions of a prompt differ, within a batch and between two.

        Usually broken by a default seed of 0: a group of samples collapses to one.
        """
        many = replace(sampling, n=8)
        first = [key(each) for each in completions(completer.complete_batch([asked], many))]
        again = [key(each) for each in completions(completer.complete_batch([asked], many))]
        assert len(set(first)) > 1, "eight samples are one completion"
        assert first != again
