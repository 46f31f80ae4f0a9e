"""What a completer promises."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from ..errors import AdapterError, InvalidInput, NotFound, Unsupported
from ..ports import Completer, TrainingClient
from ..types import Completion, CompletionChunk, Datum, ModelInput, SamplingParams
from .conformance import Conformance, needs, synthetic, unless_synthetic

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")

Reopen: TypeAlias = Callable[[], contextlib.AbstractContextManager[Completer]]

# What is no prompt, and which kind of prompt it fails to be.
BAD_PROMPTS: Mapping[str, tuple[str, Any]] = {
    "nothing": ("", []),
    "None": ("", None),
    "text": ("", "text"),
    "a number": ("", 3),
    "rows": ("tokens", [[1], [2, 3]]),
    "floats": ("tokens", [1.5, 2.5]),
    "a negative token": ("tokens", [1, -1]),
    "an empty ModelInput": ("tokens", ModelInput(())),
    "a message without content": ("messages", [{"role": "user"}]),
    "a message without a role": ("messages", [{"content": "hello"}]),
    "a role that is no text": ("messages", [{"role": 3, "content": "hello"}]),
    "content that is no text": ("messages", [{"role": "user", "content": 3}]),
    "a message and text": ("messages", [{"role": "user", "content": "hello"}, "hello"]),
}


class CompleterConformance(Conformance):
    """Tests of a completer. Override the fixture `completer`; `model`, `prompt` and `token_prompt`
    where the defaults do not fit; `context_length`, `trainer`, `in_flight` and `reopen` if you can.

    Completions are compared with each other, so a seed must mean something: bind an adapter whose
    server has one generator for all requests in flight so that it sends one at a time.
    """

    port = Completer
    tolerance: ClassVar[float] = 1e-3
    """By how many nats two computations of one log probability may differ."""
    max_in_flight: ClassVar[int] = 64
    """How many requests of a batch may be in flight at a time, where `in_flight` counts them."""

    @pytest.fixture
    def completer(self) -> Any:
        """The adapter, bound. Required: `bound("completer", <name or module>, ...)`."""
        raise NotImplementedError(
            "give the fixture `completer`, which yields the adapter to be tested; "
            "crucible_kitchen.testing.bound makes one"
        )

    @pytest.fixture
    def model(self) -> str | None:
        """The model to ask; None is the adapter's default."""
        return None

    @pytest.fixture
    def prompt(self) -> Sequence[Any] | str:
        """A conversation to which there are many answers, as messages, as JSON, or as the text of
        one message.
        """
        return "Write a few words about the sea."

    @pytest.fixture
    def token_prompt(self) -> Sequence[int] | str:
        """Token ids that the model has, as a list or as JSON. Tests of token ids are skipped where
        the adapter says that it cannot take them.
        """
        return [0, 1, 2, 3, 5, 8, 13, 21]

    @pytest.fixture
    def max_tokens(self) -> int | str:
        """How many tokens the completions of most tests have at most."""
        return 16

    @pytest.fixture
    def context_length(self, completer: Completer) -> int | str | None:
        """The most tokens that the model reads and writes, if it is known. By default what the
        adapter has as an option of this name.
        """
        bound: Any = completer
        while bound is not None:
            if (found := getattr(bound.options, "context_length", None)) is not None:
                return int(found)
            bound = bound.inner
        return None

    @pytest.fixture
    def missing_model(self, completer: Completer) -> str | None:
        """A model that does not exist; None where every one does, as with a synthetic completer."""
        return None if synthetic(completer) else "crucible-conformance/missing"

    @pytest.fixture
    def trainer(self) -> tuple[TrainingClient, Any] | None:
        """The paired training client, with a session whose weights it can publish. Optional."""
        return None

    @pytest.fixture
    def in_flight(self) -> Callable[[], int] | None:
        """A function that returns how many requests the backend has had in flight at most, so far.
        Optional.
        """
        return None

    @pytest.fixture
    def reopen(self) -> Reopen | None:
        """A function that binds the adapter once more, under equal options, as another process
        would. Optional.
        """
        return None

    # --- what the tests ask with ---

    @pytest.fixture
    def sampling(self, max_tokens: int | str, model: str | None) -> SamplingParams:
        """Parameters without a seed, at temperature 1."""
        return SamplingParams(int(max_tokens), model=model)

    @pytest.fixture
    def greedy(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, temperature=0.0)

    @pytest.fixture
    def long(
        self,
        completer: Completer,
        asked: Any,
        greedy: SamplingParams,
        context_length: int | str | None,
    ) -> SamplingParams:
        """Greedy, eight times as long, if the context has room for it: long enough for most models
        to come to an end.
        """
        limit = 8 * greedy.max_tokens
        if context_length is not None:
            usage = completer.complete(asked, replace(greedy, max_tokens=1)).usage
            limit = min(limit, int(context_length) - (usage.prompt_tokens if usage else 64))
        return replace(greedy, max_tokens=limit)

    @pytest.fixture
    def conversation(
        self, completer: Completer, prompt: Sequence[Any] | str, sampling: SamplingParams
    ) -> Sequence[Any] | None:
        """The prompt as messages; None where the adapter cannot take them."""
        messages: Any = prompt
        if isinstance(prompt, str):
            parsed = json.loads(prompt) if prompt.lstrip()[:1] == "[" else None
            messages = parsed or [{"role": "user", "content": prompt}]
        return messages if _takes(completer, messages, sampling) else None

    @pytest.fixture
    def ids(
        self, completer: Completer, token_prompt: Sequence[int] | str, sampling: SamplingParams
    ) -> list[int] | None:
        """The prompt of token ids; None where the adapter cannot take them."""
        given = json.loads(token_prompt) if isinstance(token_prompt, str) else token_prompt
        tokens = [int(token) for token in given]
        return tokens if _takes(completer, tokens, sampling) else None

    @pytest.fixture
    def asked(self, conversation: Sequence[Any] | None, ids: list[int] | None) -> Any:
        """A prompt that the adapter can take, messages if it can choose."""
        found = conversation or ids
        assert found, "the adapter takes neither messages nor token ids"
        return found

    # --- one completion ---

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
        count = _count(whole)
        assert count <= greedy.max_tokens
        if whole.finish_reason == "length":
            assert count == greedy.max_tokens
        if count < 2:
            pytest.skip("the model says a single token, which cannot be cut")
        for limit in sorted({1, count // 2, count - 1}):
            cut = completer.complete(asked, replace(greedy, max_tokens=limit))
            assert _count(cut) == limit
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
        with pytest.raises(InvalidInput):
            completer.complete(asked, replace(sampling, n=2))
        if completer.supports("stream_complete"):
            with pytest.raises(InvalidInput):
                list(completer.stream_complete(asked, replace(sampling, n=2)))

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

    # --- greedy, and seeds ---

    def test_temperature_0_is_greedy(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """At temperature 0 the completion is the same each time, whatever the seed, and so are all
        of a batch.

        Usually broken by a server that takes 0 for "not set" and samples with its default.
        """
        first = completer.complete(asked, greedy)
        _same(completer.complete(asked, greedy), first)
        with _offered("a seed"):
            for seed in (1, 2, 3):
                _same(completer.complete(asked, replace(greedy, seed=seed)), first)
        for each in _completions(completer.complete_batch([asked], replace(greedy, n=3))):
            _same(each, first)

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
            _same(found, best)

    def test_a_seed_decides_what_is_sampled(
        self,
        completer: Completer,
        asked: Any,
        sampling: SamplingParams,
        reopen: Reopen | None,
    ) -> None:
        """The same prompt with the same seed is completed alike, by another process too; other
        seeds give other completions.

        Usually broken by a generator that lives on between calls, and by `hash`, which differs
        from process to process.
        """
        seeded = [replace(sampling, seed=seed) for seed in range(20, 28)]
        with _offered("a seed"):
            first = [completer.complete(asked, params) for params in seeded]
        assert len({_key(each) for each in first}) > 1, "eight seeds gave one completion"
        for params, each in reversed(list(zip(seeded, first, strict=True))):
            _same(completer.complete(asked, params), each)
        if reopen is not None:
            with reopen() as other:
                for params, each in zip(seeded, first, strict=True):
                    _same(other.complete(asked, params), each)

    def test_without_a_seed_it_is_unpredictable(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Without a seed the completions of a prompt differ, within a batch and between two.

        Usually broken by a default seed of 0: a group of samples collapses to one.
        """
        many = replace(sampling, n=8)
        first = [_key(each) for each in _completions(completer.complete_batch([asked], many))]
        again = [_key(each) for each in _completions(completer.complete_batch([asked], many))]
        assert len(set(first)) > 1, "eight samples are one completion"
        assert first != again

    # --- batches ---

    def test_a_batch_is_prompt_major(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """`complete_batch` returns `len(prompts) * n` results: the n of the first prompt, then the
        n of the second, and so on, each what `complete` returns for it.

        Usually broken by results in the order in which they were finished, or sample-major: every
        reward then goes to the wrong prompt, and training just does not learn.
        """
        prompts = _variants(asked, 5)
        alone = [completer.complete(each, greedy) for each in prompts]
        if len({_key(each) for each in alone}) == 1:
            pytest.skip("the model answers five prompts alike")
        for n in (1, 3):
            results = completer.complete_batch(prompts, replace(greedy, n=n))
            assert isinstance(results, list)
            assert len(results) == len(prompts) * n
            for k, result in enumerate(_completions(results)):
                _same(result, alone[k // n], self.tolerance)

    def test_result_k_of_a_batch_is_sampled_with_seed_plus_k(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Result k is what `complete` returns for its prompt with `seed + k`, k counted over the
        whole batch: it does not depend on what else is in the batch.

        Usually broken by one seed for the batch, or for each prompt, which collapses a group of
        samples to one; and by one generator for all.
        """
        prompts = _variants(asked, 3)
        with _offered("a seed"):
            batch = replace(sampling, n=3, seed=40)
            results = _completions(completer.complete_batch(prompts, batch))
        assert len({_key(each) for each in results[:3]}) > 1, "three seeds gave one completion"
        for k, result in enumerate(results):
            alone = completer.complete(prompts[k // 3], replace(sampling, seed=40 + k))
            _same(result, alone, self.tolerance)

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
            prompts = [_variants(asked, 5)[index] for index in chosen]
            params = replace(sampling, seed=seed, max_tokens=max_tokens)
            results = _completions(completer.complete_batch(prompts, replace(params, n=n)))
            assert len(results) == len(prompts) * n
            for k, result in enumerate(results):
                alone = completer.complete(prompts[k // n], replace(params, seed=seed + k))
                _same(result, alone, self.tolerance)

        with _offered("a seed"):
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
        good = _variants(asked, 2)
        alone = [completer.complete(each, greedy) for each in good]
        bad: list[Any] = [each for _, each in BAD_PROMPTS.values()]
        results = completer.complete_batch([good[0], *bad, good[1]], replace(greedy, n=2))
        assert len(results) == 2 * (len(bad) + 2)
        for result, expected in zip(results[:2] + results[-2:], [0, 0, 1, 1], strict=True):
            assert isinstance(result, Completion), result
            _same(result, alone[expected], self.tolerance)
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
        count = _given(in_flight, "in_flight")
        prompts = [asked] * (3 * self.max_in_flight)
        results = completer.complete_batch(prompts, replace(sampling, max_tokens=1))
        assert len(_completions(results)) == len(prompts)
        assert 1 < count() <= self.max_in_flight

    def test_many_threads_complete_at_once(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """Callbacks come from any thread, and each gets its own completion.

        Usually broken by a client, a model or a buffer that is shared without a lock.
        """
        threads = 8
        prompts = _variants(asked, threads)
        alone = [completer.complete(each, greedy) for each in prompts]
        start = threading.Barrier(threads)

        def complete(index: int) -> list[Completion]:
            start.wait()
            singly = [completer.complete(prompts[index], greedy) for _ in range(2)]
            return [*singly, *_completions(completer.complete_batch([prompts[index]], greedy))]

        with ThreadPoolExecutor(threads) as pool:
            for index, found in enumerate(pool.map(complete, range(threads))):
                for each in found:
                    _same(each, alone[index], self.tolerance)

    # --- where a completion stops ---

    def test_a_stop_string_ends_the_completion(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """The text ends before the first of the stop strings, the finish reason is "stop", and the
        tokens end with the one that completed it, however the string is cut into tokens.

        Usually broken by a server that ignores or includes the string, by comparing tokens with
        strings, and by a last token that holds more than the string.
        """
        whole = completer.complete(asked, greedy)
        stop = _late_part(whole.text)
        expected = whole.text[: whole.text.index(stop)]
        stopping = replace(greedy, stop=("never there", stop))
        [in_batch] = _completions(completer.complete_batch([asked], stopping))
        for found in (completer.complete(asked, stopping), in_batch):
            assert found.text == expected
            assert found.finish_reason == "stop"
            if found.tokens is None or whole.tokens is None:
                continue
            size = len(found.tokens)
            assert found.tokens.tolist() == whole.tokens[:size].tolist()
            cut = [completer.complete(asked, replace(greedy, max_tokens=size)).text]
            if size > 1:
                cut.append(completer.complete(asked, replace(greedy, max_tokens=size - 1)).text)
            assert [stop in text for text in cut] == [True, False][: len(cut)]

    def test_a_stop_string_that_does_not_come_changes_nothing(
        self, completer: Completer, asked: Any, long: SamplingParams
    ) -> None:
        """Where no stop string comes, the completion is what it is without, to its end: what looks
        like the beginning of one is not lost, and the model's end token still ends it.

        Usually broken by text that is held back and never given, and by a stop that replaces the
        model's own.
        """
        whole = completer.complete(asked, long)
        stop = (_almost_met(whole.text), "never there")
        _same(completer.complete(asked, replace(long, stop=stop)), whole)

    def test_a_stop_token_ends_the_completion(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        """A token id among `stop` ends the completion: it is the last of the tokens and not in the
        text. An adapter that cannot stop at ids says `Unsupported`.

        Usually broken by ids that are sent as text, or dropped.
        """
        whole = completer.complete(asked, greedy)
        if whole.tokens is None:
            with pytest.raises(Unsupported):
                completer.complete(asked, replace(greedy, stop=(3,)))
            return
        tokens = whole.tokens.tolist()
        last = max(set(tokens), key=tokens.index)  # the one that comes first as late as can be
        size = tokens.index(last) + 1
        with _offered("a stop token"):
            found = completer.complete(asked, replace(greedy, stop=(last,)))
        assert found.tokens is not None
        assert found.tokens.tolist() == tokens[:size]
        assert found.finish_reason == "stop"
        shorter = replace(greedy, max_tokens=size - 1) if size > 1 else None
        assert found.text == (completer.complete(asked, shorter).text if shorter else "")

    def test_an_empty_stop_stops_at_nothing(
        self, completer: Completer, asked: Any, long: SamplingParams
    ) -> None:
        """With `stop=()` a completion goes on to `max_tokens`, beyond the model's end token. An
        adapter that cannot go on says `Unsupported`.

        Usually broken by `if params.stop:`, for which () and None are the same.
        """
        with _offered("stop=()"):
            for temperature in (0.0, 1.0):
                params = replace(long, stop=(), temperature=temperature)
                found = completer.complete(asked, params)
                assert found.finish_reason == "length"
                assert _count(found) == params.max_tokens

    # --- log probabilities ---

    def test_logprobs_are_given_or_refused(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Whoever asks for `logprobs` gets them or `Unsupported`, from every callback, and who
        does not gets None.

        Usually broken by a server that ignores the field, as `transformers serve` 5.23.0 does: the
        algorithm that needs them finds None, or worse, zeros.
        """
        asking = replace(sampling, logprobs=True)
        [in_batch] = completer.complete_batch([asked], asking)
        refused = isinstance(in_batch, Unsupported)
        if not refused:
            assert isinstance(in_batch, Completion), in_batch
            assert in_batch.logprobs is not None
            assert completer.complete(asked, asking).logprobs is not None
        else:
            with pytest.raises(Unsupported):
                completer.complete(asked, asking)
        if completer.supports("stream_complete"):
            if refused:
                with pytest.raises(Unsupported):
                    list(completer.stream_complete(asked, asking))
            else:
                chunks = list(completer.stream_complete(asked, asking))
                assert all(chunk.logprobs is not None for chunk in chunks)
        [unasked] = _completions(completer.complete_batch([asked], sampling))
        assert unasked.logprobs is None
        assert completer.complete(asked, sampling).logprobs is None

    def test_there_is_one_logprob_for_each_token(
        self, completer: Completer, asked: Any, long: SamplingParams
    ) -> None:
        """`logprobs` is float32, as long as `tokens`, the end token included; each is finite and
        no probability is above 1.

        Usually broken by servers that leave out the end token's, or the first one's.
        """
        asking = replace(long, logprobs=True, temperature=1.0)
        with _offered("logprobs"):
            results = _completions(completer.complete_batch([asked], replace(asking, n=4)))
            results.append(completer.complete(asked, replace(asking, max_tokens=1)))
        for completion in results:
            logprobs = completion.logprobs
            assert logprobs is not None
            assert logprobs.dtype == np.float32
            assert logprobs.shape == (_count(completion),)
            assert np.isfinite(logprobs).all()
            assert (logprobs <= 1e-5).all()  # rounding

    @needs("score")
    def test_logprobs_are_what_score_returns(
        self, completer: Completer, ids: list[int] | None, sampling: SamplingParams
    ) -> None:
        """At temperature 1, top_p 1 and top_k -1 the log probability of each sampled token is that
        which `score` gives to it in its place.

        Usually broken by the log probabilities of the token before or after, or of a distribution
        that was cut or scaled.
        """
        given = _given_ids(ids)
        with _offered("logprobs"):
            asking = replace(sampling, logprobs=True, n=3)
            results = _completions(completer.complete_batch([given], asking))
        sequences = [[*given, *_tokens(each)] for each in results]
        for result, score in zip(results, completer.score(sequences, sampling.model), strict=True):
            assert result.logprobs is not None
            found = score[len(given) - 1 :]
            np.testing.assert_allclose(result.logprobs, found, atol=self.tolerance)

    def test_logprobs_are_those_of_the_trainer(
        self,
        completer: Completer,
        ids: list[int] | None,
        sampling: SamplingParams,
        trainer: tuple[TrainingClient, Any] | None,
    ) -> None:
        """With weights that the paired training client published, the log probabilities are those
        of its `forward`, in `complete` and in `score`.

        Usually broken by another precision, by dropout, or by weights of an earlier step: the
        ratio of new to old policy, which starts at 1, is then wrong from the start.
        """
        client, session = _given(trainer, "trainer")
        given = _given_ids(ids)
        reference = client.save_weights_for_sampler(session)
        with _offered("logprobs"):
            asking = replace(sampling, logprobs=True, model=reference)
            result = completer.complete(given, asking)
        sequence = np.asarray([*given, *_tokens(result)])
        datum = Datum(ModelInput.from_ints(sequence[:-1]), {"target_tokens": sequence[1:]})
        forward = client.await_(client.forward(session, [datum])).outputs[0]["logprobs"]
        assert result.logprobs is not None
        expected = forward[len(given) - 1 :]
        np.testing.assert_allclose(result.logprobs, expected, atol=self.tolerance)
        if completer.supports("score"):
            [score] = completer.score([sequence.tolist()], reference)
            np.testing.assert_allclose(score, forward, atol=self.tolerance)

    # --- prompts ---

    def test_token_ids_in_any_form_are_one_prompt(
        self, completer: Completer, ids: list[int] | None, greedy: SamplingParams
    ) -> None:
        """A list, a tuple, an array and a `ModelInput` of the same token ids are the same prompt;
        token ids come back.

        Usually broken by `if prompt`, which an array refuses, and by JSON, which knows no int64.
        """
        given = _given_ids(ids)
        array = np.asarray(given)
        forms: list[Any] = [given, tuple(given), array, list(array), ModelInput.from_ints(given)]
        found = [completer.complete(form, greedy) for form in forms]
        found += _completions(completer.complete_batch(forms, greedy))
        assert found[0].tokens is not None
        for each in found:
            _same(each, found[0], self.tolerance)

    def test_token_ids_are_never_turned_into_text(
        self, completer: Completer, ids: list[int] | None, greedy: SamplingParams
    ) -> None:
        """The model reads exactly the token ids that it was given, special ones among them: they
        are as many, and one more or less makes another prompt.

        Usually broken by a server that decodes and encodes again: two ids may become one, special
        tokens are dropped or added, and whoever trains on the ids trains on another prompt.
        """
        given = _given_ids(ids)
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
        given = _given_ids(ids)
        tokens = _tokens(completer.complete(given, greedy))
        for size in range(1, len(tokens)):
            shorter = replace(greedy, max_tokens=len(tokens) - size)
            again = completer.complete([*given, *tokens[:size]], shorter)
            assert _tokens(again) == tokens[size:]

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
        given = _given_ids(ids)
        if conversation is None:
            pytest.skip("the adapter takes no messages")
        prompts: list[Any] = [conversation, given, ModelInput.from_ints(given), conversation]
        results = _completions(completer.complete_batch(prompts, greedy))
        for prompt, result in zip(prompts, results, strict=True):
            _same(result, completer.complete(prompt, greedy), self.tolerance)

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
        kind, bad = BAD_PROMPTS[what]
        taken = {"messages": conversation is not None, "tokens": ids is not None}
        # Of a kind that it cannot take at all, an adapter may say that.
        expected = InvalidInput if taken.get(kind, True) else (InvalidInput, Unsupported)
        with pytest.raises(expected):
            completer.complete(bad, sampling)
        [result] = completer.complete_batch([bad], sampling)
        assert isinstance(result, expected)
        if completer.supports("stream_complete"):
            with pytest.raises(expected):
                list(completer.stream_complete(bad, sampling))

    def test_a_prompt_beyond_the_context_is_refused(
        self,
        completer: Completer,
        conversation: Sequence[Any] | None,
        ids: list[int] | None,
        sampling: SamplingParams,
        context_length: int | str | None,
    ) -> None:
        """A prompt that leaves no room for an answer is `InvalidInput`, from every callback, and
        takes nobody in its batch with it; one that leaves room for one token is answered with one.

        Usually broken by a server that cuts off the beginning: the question, or the system's
        message, is silently gone.
        """
        context = int(_given(context_length, "context_length"))
        short = replace(sampling, max_tokens=1)
        long: list[Any] = []
        if ids is not None:
            long += [(ids * context)[:size] for size in (context, context + 100)]
            fits = completer.complete((ids * context)[: context - 1], short)
            assert _count(fits) == 1
        if conversation is not None:
            long.append([*conversation[:-1], {**conversation[-1], "content": "word " * context}])
        for prompt in long:
            with pytest.raises(InvalidInput):
                completer.complete(prompt, short)
            asked = conversation or ids
            results = completer.complete_batch([asked, prompt, asked], short)  # type: ignore[list-item]
            assert [type(each) for each in results] == [Completion, InvalidInput, Completion]
            if completer.supports("stream_complete"):
                with pytest.raises(InvalidInput):
                    list(completer.stream_complete(prompt, short))
        if ids is not None and completer.supports("score"):
            with pytest.raises(InvalidInput):
                completer.score([ids, (ids * context)[: context + 2]], sampling.model)

    def test_an_unknown_model_is_not_found(
        self,
        completer: Completer,
        asked: Any,
        sampling: SamplingParams,
        missing_model: str | None,
    ) -> None:
        """A model that the backend does not have is `NotFound`, from every callback, of a batch
        for the whole or for each item.

        Usually broken by answering with the default model, which nobody notices.
        """
        missing = replace(sampling, model=_given(missing_model, "missing_model"))
        with pytest.raises(NotFound):
            completer.complete(asked, missing)
        with contextlib.suppress(NotFound):
            results = completer.complete_batch([asked, asked], missing)
            assert [type(each) for each in results] == [NotFound, NotFound]
        if completer.supports("stream_complete"):
            with pytest.raises(NotFound):
                list(completer.stream_complete(asked, missing))
        if completer.supports("score"):
            with pytest.raises(NotFound):
                completer.score([[1, 2, 3]], missing.model)

    # --- streams ---

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
            cases.append(replace(greedy, stop=(_late_part(whole.text), "never there")))
            cases.append(replace(greedy, stop=(_almost_met(whole.text),)))
        for params in cases:
            chunks = list(completer.stream_complete(asked, params))
            _same(_joined(chunks), completer.complete(asked, params), self.tolerance)

    @needs("stream_complete")
    def test_any_stream_adds_up_to_the_completion_of_its_seed(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Whatever the seed, the length and the stop strings, a stream is `complete` in pieces.

        Usually broken by a second way to sample, for streams alone.
        """
        with _offered("a seed"):
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
            _same(_joined(list(completer.stream_complete(asked, params))), whole, self.tolerance)

        check()

    @needs("stream_complete")
    def test_a_stream_may_be_left_early(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        """Leaving a stream frees the server: doing it often harms nobody, and before the first
        piece neither.

        Usually broken by connections that are never given back, and by generations that go on.
        """
        for turn in range(20):
            with completer.stream_complete(asked, sampling) as stream:
                if turn % 4:
                    assert isinstance(next(stream), CompletionChunk)
            assert list(stream) == []
        assert completer.complete(asked, sampling).finish_reason in FINISH_REASONS

    # --- scores ---

    @needs("score")
    def test_a_score_is_a_logprob_for_each_token_after_the_first(
        self, completer: Completer, ids: list[int] | None, model: str | None
    ) -> None:
        """For a sequence of n tokens `score` returns n - 1 log probabilities in nats, float32,
        finite, none above 0; of no sequences it is an empty list.

        Usually broken by a first entry for the token that nothing comes before.
        """
        sequences: list[Any] = [*_variants(_given_ids(ids), 3), _given_ids(ids)[:1]]
        sequences.append(ModelInput.from_ints(sequences[0]))
        scores = completer.score(sequences, model)
        assert isinstance(scores, list)
        lengths = [each.length if isinstance(each, ModelInput) else len(each) for each in sequences]
        assert [score.shape for score in scores] == [(length - 1,) for length in lengths]
        for score in scores:
            assert score.dtype == np.float32
            assert np.isfinite(score).all()
            assert (score <= 1e-5).all()  # rounding
        np.testing.assert_allclose(scores[-1], scores[0], atol=self.tolerance)
        assert completer.score([], model) == []

    @needs("score")
    def test_a_score_does_not_depend_on_its_batch(
        self, completer: Completer, ids: list[int] | None, model: str | None
    ) -> None:
        """Scores come in the order of the sequences, and each is what it is alone, whatever else
        is scored with it, of whatever length.

        Usually broken by padding, and by sorting by length without sorting back.
        """
        given = _given_ids(ids)
        lengths = st.lists(st.integers(1, 2 * len(given)), min_size=1, max_size=5)

        @self.hypothesis_settings()
        @hypothesis.given(lengths=lengths, start=st.integers(0, len(given)))
        def check(lengths: list[int], start: int) -> None:
            endless = [*given[start:], *given, *given, *given]
            sequences = [endless[index : index + size] for index, size in enumerate(lengths)]
            together = completer.score(sequences, model)
            assert len(together) == len(sequences)
            for sequence, score in zip(sequences, together, strict=True):
                [alone] = completer.score([sequence], model)
                np.testing.assert_allclose(score, alone, atol=self.tolerance)

        check()

    @needs("score")
    def test_a_score_depends_on_what_comes_before(
        self, completer: Completer, ids: list[int] | None, model: str | None
    ) -> None:
        """The scores of a sequence begin with those of its beginning: what follows a token does
        not change its probability.

        Usually broken by an offset of one, or a mask that lets the model see ahead.
        """
        given = _given_ids(ids)
        [whole] = completer.score([given], model)
        for size in range(1, len(given)):
            [score] = completer.score([given[:size]], model)
            np.testing.assert_allclose(score, whole[: size - 1], atol=self.tolerance)

    @needs("score")
    def test_what_cannot_be_scored_is_refused(
        self, completer: Completer, ids: list[int] | None, model: str | None
    ) -> None:
        """A sequence that is none is `InvalidInput`, also among good ones.

        Usually broken by leaving it out, which shifts all others.
        """
        given = _given_ids(ids)
        for kind, bad in BAD_PROMPTS.values():
            if kind != "messages":
                with pytest.raises(InvalidInput):
                    completer.score([given, bad, given], model)


def _takes(completer: Completer, prompt: Any, sampling: SamplingParams) -> bool:
    """Say whether a prompt is of a kind that the adapter can take."""
    try:
        completer.complete(prompt, replace(sampling, max_tokens=1))
    except Unsupported:
        return False
    return True


def _variants(prompt: Any, count: int) -> list[Any]:
    """Return the prompt, and others like it, each longer than the one before."""
    if not isinstance(prompt[0], Mapping):
        return [[*prompt, *itertools.islice(itertools.cycle(prompt), i)] for i in range(count)]
    content = prompt[-1]["content"]
    return [
        [*prompt[:-1], {**prompt[-1], "content": content + " Again." * index}]
        for index in range(count)
    ]


def _completions(results: Sequence[Completion | AdapterError]) -> list[Completion]:
    """Return the results of a batch, or raise the first error among them."""
    for result in results:
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, Completion), result
    return [*results]  # type: ignore[list-item]


def _tokens(completion: Completion) -> list[int]:
    assert completion.tokens is not None, "token ids in, token ids out"
    return [int(token) for token in completion.tokens]


def _count(completion: Completion) -> int:
    """Return how many tokens were generated, or skip the test where nothing tells."""
    if completion.tokens is not None:
        return len(completion.tokens)
    if completion.usage is not None:
        return completion.usage.completion_tokens
    pytest.skip("the adapter gives neither token ids nor usage, so nobody can count")


def _key(completion: Completion) -> Any:
    """Return what distinguishes completions from each other."""
    if completion.tokens is not None:
        return tuple(completion.tokens.tolist())
    return completion.text, completion.finish_reason


def _same(found: Completion, expected: Completion, tolerance: float = 1e-3) -> None:
    """Check that two completions are one."""
    assert found.text == expected.text
    assert (found.reasoning or "") == (expected.reasoning or "")
    assert found.finish_reason == expected.finish_reason
    assert _listed(found.tokens) == _listed(expected.tokens)
    assert (found.logprobs is None) == (expected.logprobs is None)
    if found.logprobs is not None and expected.logprobs is not None:
        np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=tolerance)


def _listed(array: Any) -> list[Any] | None:
    return None if array is None else list(array.tolist())


def _joined(chunks: Sequence[CompletionChunk]) -> Completion:
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


def _late_part(text: str) -> str:
    """Return a part of a text, of up to three characters, that comes first as late as can be."""
    parts = [text[i : i + size] for i in range(len(text)) for size in (3, 2, 1)]
    whole = [part for part in parts if "\ufffd" not in part]  # half a character may become one
    if not whole:
        pytest.skip("the model says nothing at which it could be stopped")
    return max(whole, key=lambda part: (text.index(part), len(part)))


def _almost_met(text: str) -> str:
    """Return a string that is not in a text, though its beginning is the end of the text."""
    begun = text[-2:].strip("\ufffd")
    end = next(c for c in "abcdefghijklmnopqrstuvwxyz" if begun + c not in text)
    return begun + end


def _given(value: Any, name: str) -> Any:
    """Return the value of a fixture, or skip the test where it is not given."""
    if value is None:
        pytest.skip(f"the fixture `{name}` is not given")
    return value


def _given_ids(ids: list[int] | None) -> list[int]:
    if ids is None:
        pytest.skip("the adapter takes no token ids")
    return ids


@contextlib.contextmanager
def _offered(what: str) -> Iterator[None]:
    """Skip the test where an adapter says that it does not offer this."""
    try:
        yield
    except Unsupported as error:
        pytest.skip(f"{what} is not offered: {error.reason}")
