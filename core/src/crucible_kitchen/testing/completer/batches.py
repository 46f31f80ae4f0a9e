"""Batches of prompts."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from ...errors import InvalidInput, Unsupported
from ...ports import Completer
from ...types import Completion, SamplingParams
from .bad_prompts import BAD_PROMPTS
from .comparison import completions, key, offered, same, variants
from .fixtures import CompleterFixtures


class Batches(CompleterFixtures):
    """`complete_batch`."""

    def test_a_batch_is_prompt_major(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """`complete_batch` returns `len(prompts) * n` results: the n of the first prompt, then the
        n of the second, and so on, each what `complete` returns for it.

        Usually broken by results in the order in which they were finished, or sample-major: every
        reward then goes to the wrong prompt, and training just does not learn.
        """
        prompts = variants(asked, 5)
        alone = [completer.complete(each, greedy) for each in prompts]
        if len({key(each) for each in alone}) == 1:
            pytest.skip("the model answers five prompts alike")
        for n in (1, 3):
            results = completer.complete_batch(prompts, replace(greedy, n=n))
            assert isinstance(results, list)
            assert len(results) == len(prompts) * n
            for k, result in enumerate(completions(results)):
                same(result, alone[k // n], self.tolerance)

    def test_result_k_of_a_batch_is_sampled_with_seed_plus_k(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Result k is what `complete` returns for its prompt with `seed + k`, k counted over the
        whole batch: it does not depend on what else is in the batch.

        Usually broken by one seed for the batch, or for each prompt, which collapses a group of
        samples to one; and by one generator for all.
        """
        prompts = variants(asked, 3)
        with offered("a seed"):
            batch = replace(sampling, n=3, seed=40)
            results = completions(completer.complete_batch(prompts, batch))
        assert len({key(each) for each in results[:3]}) > 1, "three seeds gave one completion"
        for k, result in enumerate(results):
            alone = completer.complete(prompts[k // 3], replace(sampling, seed=40 + k))
            same(result, alone, self.tolerance)

    def test_any_batch_is_what_its_items_are_alone(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Whatever the prompts, their number, n, the seed and the length: a batch is nothing but a
        faster way to ask one by one.

        Usually broken by padding, by a cache of keys and values, or by a loop over prompts that
        restarts the count of seeds.
        """

        @self.hypothesis_settings()
        @hypothesis.given(
            chosen=st.lists(st.integers(0, 4), max_size=3),
            n=st.integers(1, 3),
            seed=st.integers(0, 2**31),
            max_tokens=st.integers(1, sampling.max_tokens),
        )
        def check(chosen: list[int], n: int, seed: int, max_tokens: int) -> None:
            prompts = [variants(asked, 5)[index] for index in chosen]
            params = replace(sampling, seed=seed, max_tokens=max_tokens)
            results = completions(completer.complete_batch(prompts, replace(params, n=n)))
            assert len(results) == len(prompts) * n
            for k, result in enumerate(results):
                alone = completer.complete(prompts[k // n], replace(params, seed=seed + k))
                same(result, alone, self.tolerance)

        with offered("a seed"):
            check()

    def test_an_empty_batch_has_no_results(
        self, completer: Completer, sampling: SamplingParams
    ) -> None:
        """A batch without prompts is an empty list.

        Usually broken by the largest of no lengths.
        """
        assert completer.complete_batch([], sampling) == []
        assert completer.complete_batch([], replace(sampling, n=3)) == []

    def test_a_bad_item_does_not_lose_the_rest(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """In the place of a prompt that cannot be completed are n errors, each an `AdapterError`;
        the results of all others are there, and what they would be without it.

        Usually broken by the first exception of a pool of requests: an hour of sampling is lost
        because of one row.
        """
        good = variants(asked, 2)
        alone = [completer.complete(each, greedy) for each in good]
        bad: list[Any] = [copy.deepcopy(each) for _, each in BAD_PROMPTS.values()]
        results = completer.complete_batch([good[0], *bad, good[1]], replace(greedy, n=2))
        assert len(results) == 2 * (len(bad) + 2)
        for result, expected in zip(results[:2] + results[-2:], [0, 0, 1, 1], strict=True):
            assert isinstance(result, Completion), result
            same(result, alone[expected], self.tolerance)
        for index, result in enumerate(results[2:-2]):
            assert isinstance(result, InvalidInput | Unsupported), (bad[index // 2], result)

    def test_a_batch_keeps_within_its_bound_of_requests(
        self,
        completer: Completer,
        asked: Any,
        sampling: SamplingParams,
        in_flight: Callable[[], int] | None,
    ) -> None:
        """However large a batch, the requests in flight are bounded, and more than one.

        Usually broken by starting all at once, whereupon servers refuse or slow down, or one after
        another, which takes hours.
        """
        most = self.given(in_flight, "in_flight")
        prompts = [asked] * (3 * self.max_in_flight)
        results = completer.complete_batch(prompts, replace(sampling, max_tokens=1))
        assert len(completions(results)) == len(prompts)
        assert 1 < most() <= self.max_in_flight

    def test_many_threads_complete_at_once(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """Callbacks come from any thread, and each gets its own completion.

        Usually broken by a client, a model or a buffer that is shared without a lock.
        """
        threads = 8
        prompts = variants(asked, threads)
        alone = [completer.complete(each, greedy) for each in prompts]
        start = threading.Barrier(threads)

        def complete(index: int) -> list[Completion]:
            start.wait()
            singly = [completer.complete(prompts[index], greedy) for _ in range(2)]
            return [*singly, *completions(completer.complete_batch([prompts[index]], greedy))]

        with ThreadPoolExecutor(threads) as pool:
            for index, found in enumerate(pool.map(complete, range(threads))):
                for each in found:
                    same(each, alone[index], self.tolerance)
