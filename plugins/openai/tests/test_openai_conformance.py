"""The completer keeps every promise of its port, on `transformers serve` and in vLLM's protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import pytest
from crucible_kitchen import AdapterError, Completer, SamplingParams
from crucible_kitchen.testing import LEVEL, CompleterConformance, Elsewhere, bound
from inference_stub import Exchange, Stub

Connect = Callable[..., Completer]

ONE_GENERATOR = "the server draws for all requests in flight from one generator"
MADE_UP = "the server makes words up: a noop's, in any number and at any temperature"


class TestTransformersServe(CompleterConformance):
    """The server has one generator for all requests in flight: seeds need them one at a time."""

    variant = "transformers serve"
    level = LEVEL
    max_examples = 5

    @pytest.fixture
    def completer(self, served: dict[str, Any], connect: Connect) -> Completer:
        return connect(**served, max_concurrency=1)

    @pytest.fixture
    def reopen(self, served: dict[str, Any], connect: Connect) -> object:
        return lambda: nullcontext(connect(**served, max_concurrency=1))

    @pytest.mark.xfail(reason=ONE_GENERATOR)
    def test_a_seed_counts_under_threads(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        super().test_a_seed_counts_under_threads(
            completer=completer, asked=asked, sampling=sampling
        )
        pytest.xfail(ONE_GENERATOR)  # kept by chance

    @pytest.mark.xfail(reason=ONE_GENERATOR)
    def test_another_process_completes_a_batch_alike(
        self, completer: Completer, asked: Any, sampling: SamplingParams, elsewhere: Elsewhere
    ) -> None:
        super().test_another_process_completes_a_batch_alike(
            completer=completer, asked=asked, sampling=sampling, elsewhere=elsewhere
        )
        pytest.xfail(ONE_GENERATOR)  # kept by chance


VOCABULARY = 2**21
"""More than there are characters, each of which is a token of the noop's."""


class VllmLike:
    """A server with the fields that vLLM documents, which says what a noop makes up.

    Args:
        words: the noop.
        context: the most tokens of a prompt and `max_tokens` together; vLLM refuses more.
    """

    def __init__(self, words: Completer, context: int) -> None:
        self._words = words
        self._context = context
        self._lock = threading.Lock()
        self._now = 0
        self.most_in_flight = 0

    def reply(self, exchange: Exchange) -> None:
        with self._lock:
            self._now += 1
            self.most_in_flight = max(self._now, self.most_in_flight)
        try:
            self._reply(exchange)
        except AdapterError as error:
            exchange.send({"error": {"message": str(error), "code": 400}}, 400)
        finally:
            with self._lock:
                self._now -= 1

    def _reply(self, exchange: Exchange) -> None:
        body = exchange.body
        if body["model"] != "small":
            text = f"The model `{body['model']}` does not exist."
            exchange.send({"error": {"message": text, "code": 404}}, 404)
            return
        chat = "messages" in body
        prompt = body["messages"] if chat else body["prompt"]
        params = _params(body)
        if not chat and max(prompt) >= VOCABULARY:
            text = f"Token id {max(prompt)} is out of vocabulary"
            exchange.send({"error": {"message": text, "code": 400}}, 400)
            return
        read = self._words.complete(prompt, SamplingParams(1)).usage
        assert read is not None
        if read.prompt_tokens + params.max_tokens > self._context:
            text = f"This model's maximum context length is {self._context} tokens."
            exchange.send({"error": {"message": text, "code": 400}}, 400)
        elif body.get("stream"):
            exchange.stream(self._events(prompt, params, chat))
        else:
            found = self._words.complete(prompt, params)
            assert found.usage is not None
            usage = {
                "prompt_tokens": found.usage.prompt_tokens,
                "completion_tokens": found.usage.completion_tokens,
            }
            exchange.send({"choices": [_choice(found, chat, "message")], "usage": usage})

    def _events(self, prompt: Any, params: SamplingParams, chat: bool) -> Iterator[object]:
        for chunk in self._words.stream_complete(prompt, params):
            yield {"choices": [_choice(chunk, chat, "delta")]}
        yield "[DONE]"


def _params(body: Mapping[str, Any]) -> SamplingParams:
    stop: Any = body.get("stop") or body.get("stop_token_ids")
    if body.get("ignore_eos"):
        stop = ()
    return SamplingParams(
        body["max_tokens"],
        temperature=body["temperature"],
        top_p=body["top_p"],
        top_k=body["top_k"],
        stop=None if stop is None else tuple(stop),
        seed=body.get("seed"),
        logprobs=bool(body.get("logprobs")),
    )


def _choice(part: Any, chat: bool, said: str) -> dict[str, Any]:
    choice = {"finish_reason": part.finish_reason, "token_ids": part.tokens.tolist()}
    choice |= {said: {"content": part.text}} if chat else {"text": part.text}
    if part.logprobs is not None:
        values = part.logprobs.tolist()
        content = [{"token": "", "logprob": value} for value in values]
        choice["logprobs"] = {"content": content} if chat else {"token_logprobs": values}
    return choice


@pytest.fixture(scope="module")
def words() -> Iterator[Completer]:
    with bound("completer", "noop", latency_scale=0.1) as words:
        yield words


class TestVllmsProtocol(CompleterConformance):
    """What `transformers serve` cannot do: token ids, log probabilities, and many at a time."""

    variant = "vLLM protocol"
    level = LEVEL
    max_in_flight = 16

    @pytest.fixture
    def server(self, stub: Stub, words: Completer) -> VllmLike:
        server = VllmLike(words, context=1024)
        stub.reply = server.reply
        return server

    @pytest.fixture
    def completer(self, server: VllmLike, stub: Stub, connect: Connect) -> Completer:
        return connect(base_url=stub.url, model="small", extensions=True, max_concurrency=16)

    @pytest.fixture
    def reopen(self, stub: Stub, connect: Connect) -> object:
        return lambda: nullcontext(connect(base_url=stub.url, model="small", extensions=True))

    @pytest.fixture
    def context_length(self) -> int:
        return 1024

    @pytest.fixture
    def in_flight(self, server: VllmLike) -> Callable[[], int]:
        return lambda: server.most_in_flight

    @pytest.mark.xfail(
        reason="the words of the server are a noop's, which go with the whole prompt"
    )
    def test_a_completion_that_was_cut_is_continued_by_its_tokens(
        self, completer: Completer, ids: list[int] | None, greedy: SamplingParams
    ) -> None:
        super().test_a_completion_that_was_cut_is_continued_by_its_tokens(
            completer=completer, ids=ids, greedy=greedy
        )

    @pytest.mark.xfail(reason=MADE_UP)
    def test_top_k_and_top_p_bound_what_is_sampled(
        self, completer: Completer, asked: Any, sampling: SamplingParams
    ) -> None:
        super().test_top_k_and_top_p_bound_what_is_sampled(
            completer=completer, asked=asked, sampling=sampling
        )
        pytest.xfail(MADE_UP)  # kept by chance

    @pytest.mark.xfail(reason=MADE_UP)
    def test_the_temperature_counts(
        self, completer: Completer, asked: Any, greedy: SamplingParams
    ) -> None:
        super().test_the_temperature_counts(completer=completer, asked=asked, greedy=greedy)
        pytest.xfail(MADE_UP)  # kept by chance
