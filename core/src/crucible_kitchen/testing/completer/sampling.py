"""What is sampled, and what has no part in it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ...errors import InvalidInput, Unsupported
from ...ports import Completer
from ...types import Completion, SamplingParams
from ..conformance import since, unless_synthetic
from .comparison import completions, count, key, offered, same, variants
from .fixtures import CompleterFixtures


class Sampling(CompleterFixtures):
    """Seeds, temperature, `top_k` and `top_p`."""

    @since("1.5")
    def test_every_integer_is_a_seed_of_its_own(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Seeds that differ in their sign, or by a round number, give other completions, and so do
        large ones that follow each other. A seed that the backend cannot take is `InvalidInput` or
        `Unsupported`.

        Usually broken by `abs(seed)`, by `seed % 2**32`, and by a seed that travels as a float.
        """
        small = range(1, 9)

        def sampled(seeds: Sequence[int]) -> list[Any]:
            asking = [replace(sampling, seed=seed) for seed in seeds]
            return [key(completer.complete(asked, params)) for params in asking]

        with offered("a seed"):
            known = sampled(small)
        if len(set(known)) < 3:
            pytest.skip("the model answers eight seeds alike")
        for shift in (1000, 2**16, 10**6, 2**31, 2**32, 2**62, 2**63, 2**64):
            seeds = [seed + shift for seed in small]
            try:
                found, again = sampled(seeds), sampled(seeds)
            except (InvalidInput, Unsupported):
                continue
            assert found == again, f"seeds from {seeds[0]}: not the same twice"
            assert found != known, f"seeds from {seeds[0]} are those from 1"
            assert len(set(found)) > 1, f"seeds from {seeds[0]} are one"
        try:
            negative = sampled([-seed for seed in small])
        except (InvalidInput, Unsupported):
            return
        assert negative != known, "a seed loses its sign"
        assert negative == sampled([-seed for seed in small])

    @since("1.5")
    def test_a_seed_counts_under_threads(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Threads that sample at once get what each gets alone.

        Usually broken by a generator, or a random state, that all calls share.
        """
        asking = [replace(sampling, seed=seed) for seed in range(8)]
        with offered("a seed"):
            alone = [completer.complete(asked, params) for params in asking]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                together = pool.map(lambda params: completer.complete(asked, params), asking)
                for found, expected in zip(together, alone, strict=True):
                    same(found, expected, self.tolerance)

    @since("1.5")
    def test_what_else_is_asked_for_does_not_change_what_is_sampled(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """With one seed, a shorter completion is the beginning of a longer one, and neither
        log probabilities nor a stop string that does not come change it.

        Usually broken by a seed that is mixed with all that is asked for, and by another way to
        generate where log probabilities are wanted.
        """
        seeded = replace(sampling, seed=11)
        with offered("a seed"):
            whole = completer.complete(asked, seeded)
        found = completer.complete(asked, replace(seeded, stop=("never there",)))
        assert key(found) == key(whole)
        try:
            found = completer.complete(asked, replace(seeded, logprobs=True))
        except Unsupported:
            pass
        else:
            assert key(found) == key(whole)
        size = count(whole)
        for limit in {1, size // 2} - {0, size}:
            cut = completer.complete(asked, replace(seeded, max_tokens=limit))
            assert whole.text.startswith(cut.text.rstrip("\ufffd"))
            if cut.tokens is not None and whole.tokens is not None:
                assert cut.tokens.tolist() == whole.tokens[:limit].tolist()

    @since("1.5")
    def test_a_large_batch_is_what_its_items_are_alone(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """More prompts than are in flight at a time: each result is that of its prompt and its
        seed.

        Usually broken by seeds, or results, that are counted from 0 again in each part of a batch
        that is cut.
        """
        prompts, size = variants(asked, 3), self.max_in_flight + 6
        seeded = replace(sampling, seed=5, max_tokens=min(4, sampling.max_tokens))
        with offered("a seed"):
            results = completions(
                completer.complete_batch([prompts[k % 3] for k in range(size)], seeded)
            )
        for k in [*range(0, size, 9), size - 1]:
            alone = completer.complete(prompts[k % 3], replace(seeded, seed=5 + k))
            same(results[k], alone, self.tolerance)

    @since("1.5")
    def test_a_bad_item_does_not_shift_the_seeds_of_others(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Result k is sampled with `seed + k`, errors counted.

        Usually broken by counting the completions so far.
        """
        seeded = replace(sampling, seed=40, n=2)
        bad: Any = []
        with offered("a seed"):
            results = completer.complete_batch([asked, bad, asked], seeded)
        assert len(results) == 6
        for k in (0, 1, 4, 5):
            found = results[k]
            assert isinstance(found, Completion), found
            alone = completer.complete(asked, replace(seeded, n=1, seed=40 + k))
            same(found, alone, self.tolerance)

    @since("1.5")
    @unless_synthetic
    def test_the_temperature_counts(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """Near temperature 0 first tokens are the greedy one more often than at 2. An adapter that
        cannot set it says `Unsupported`.

        Usually broken by a field that the server does not know, and drops without a word.
        """
        one = replace(greedy, max_tokens=1, seed=3)
        best = key(completer.complete(asked, replace(one, seed=None)))
        hits = []
        for temperature in (0.01, 2.0):
            with offered("a temperature, or a seed"):
                asking = replace(one, temperature=temperature, n=24)
                found = completions(completer.complete_batch([asked], asking))
            hits.append(sum(key(each) == best for each in found))
        if hits[1] == 24:
            pytest.skip("the model has one way to begin")
        assert hits[0] > hits[1], f"of 24, near 0: {hits[0]} are greedy, at 2: {hits[1]}"

    @since("1.5")
    @unless_synthetic
    def test_top_k_and_top_p_bound_what_is_sampled(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """With `top_k=2` there are two first tokens at most; with a `top_p` that the most likely
        one reaches alone there is one. An adapter that cannot honour a field says `Unsupported`.

        Usually broken by a bound that is off by one, and by a fraction that is measured in another
        distribution.
        """
        one = replace(sampling, max_tokens=1, temperature=1.0, seed=3)

        def begun(**bound: Any) -> set[Any]:
            asking = replace(one, n=32, **bound)
            return {key(each) for each in completions(completer.complete_batch([asked], asking))}

        with offered("a seed"):
            begun()
        with contextlib.suppress(Unsupported):
            assert len(begun(top_k=2)) <= 2, "of 32 first tokens, with top_k=2"
        with offered("top_p, or logprobs"):
            many = completions(completer.complete_batch([asked], replace(one, n=32, logprobs=True)))
            most = max(float(np.exp(each.logprobs[0])) for each in many)  # type: ignore[index]
            assert len(begun(top_p=0.9 * most)) == 1, f"with top_p of 0.9 of {most:.3f}"
