"""What the completer promises, shown on `transformers serve`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from crucible_kitchen import (
    AdapterError,
    Completer,
    Completion,
    InvalidInput,
    Message,
    NotFound,
    SamplingParams,
    Unavailable,
    Unsupported,
)

HELLO: list[Message] = [{"role": "user", "content": "hello"}]
# The server refuses the first for its chat template, the adapter the others for what they are.
BAD: list[Any] = [
    [{"role": "martian", "content": "hello"}],
    [],
    [{"role": "user"}],
    [{"role": "user", "content": "hello"}, "hello"],
    [1, 2, 3],
]


@pytest.fixture
def completer(served: dict[str, Any], connect: Callable[..., Completer]) -> Completer:
    return connect(**served)


@pytest.fixture
def one_at_a_time(served: dict[str, Any], connect: Callable[..., Completer]) -> Completer:
    """Seeds mean something: the server has one generator for all requests in flight."""
    return connect(**served, max_concurrency=1)


def greedy(max_tokens: int, stop: Any = None) -> SamplingParams:
    return SamplingParams(max_tokens=max_tokens, temperature=0, stop=stop)


def seeded(seed: int, n: int = 1) -> SamplingParams:
    return SamplingParams(max_tokens=12, seed=seed, n=n)


def talk(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def test_a_conversation_is_completed(completer: Completer) -> None:
    completion = completer.complete(HELLO, greedy(20))
    assert len(completion.text) == 20  # a token is a character
    assert completion.finish_reason == "length"
    assert completion.tokens is None
    assert completion.logprobs is None
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == len("user: hello\nassistant: ")
    assert completion.usage.completion_tokens == 20


def test_temperature_0_is_greedy_whatever_the_seed(completer: Completer) -> None:
    params = [dataclasses.replace(greedy(20), seed=seed) for seed in (1, 2)]
    assert len({completer.complete(HELLO, each).text for each in params}) == 1


def test_a_seed_decides_what_is_sampled(completer: Completer) -> None:
    texts = [completer.complete(HELLO, seeded(seed)).text for seed in (7, 8, 7)]
    assert texts[0] == texts[2] != texts[1]


def test_the_end_token_ends_the_text_and_is_not_part_of_it(completer: Completer) -> None:
    for seed in range(100):
        completion = completer.complete(HELLO, dataclasses.replace(seeded(seed), max_tokens=30))
        assert "<|" not in completion.text
        if completion.finish_reason == "stop":
            assert completion.usage is not None
            assert len(completion.text) < completion.usage.completion_tokens <= 30
            break
    else:
        pytest.fail("no completion of 100 ended before its limit")


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(completer: Completer) -> None:
    whole = completer.complete(HELLO, greedy(30)).text
    stop = whole[10:13]
    completion = completer.complete(HELLO, greedy(30, stop=("never there", stop)))
    assert completion.text == whole[: whole.index(stop)]
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("stopped", [False, True])
def test_a_stream_adds_up_to_what_complete_returns(completer: Completer, stopped: bool) -> None:
    whole = completer.complete(HELLO, greedy(30)).text
    params = greedy(30, stop=whole[10:13] if stopped else None)
    completion = completer.complete(HELLO, params)
    chunks = list(completer.stream_complete(HELLO, params))
    assert len(chunks) > 5
    assert "".join(chunk.text for chunk in chunks) == completion.text
    assert chunks[-1].finish_reason == completion.finish_reason == ("stop" if stopped else "length")
    assert all(chunk.finish_reason is None for chunk in chunks[:-1])


def test_leaving_a_stream_early_frees_the_server(
    served: dict[str, Any], connect: Callable[..., Completer]
) -> None:
    # It generates one completion at a time, and this one would take it minutes.
    endless = completer = connect(**served, timeout=30)
    with endless.stream_complete(HELLO, greedy(50_000)) as stream:
        assert next(stream).text
    assert completer.complete(HELLO, greedy(1)).text


def test_a_batch_of_200_keeps_its_order_and_loses_only_the_five_bad_ones(
    completer: Completer,
) -> None:
    prompts: list[Any] = [talk(f"{index}") for index in range(195)]
    at = [0, 50, 51, 130, 199]
    for index, bad in zip(at, BAD, strict=True):
        prompts.insert(index, bad)
    results = completer.complete_batch(prompts, greedy(6))
    assert len(results) == 200
    errors = {k: each for k, each in enumerate(results) if isinstance(each, AdapterError)}
    assert list(errors) == at, errors
    assert [type(each) for each in errors.values()] == [
        Unavailable, InvalidInput, InvalidInput, InvalidInput, Unsupported,
    ]  # fmt: skip
    assert {(each.port, each.callback) for each in errors.values()} == {
        ("completer", "complete_batch")
    }
    assert sum(isinstance(each, Completion) for each in results) == 195
    for index in (1, 49, 52, 131, 198):
        [alone] = completer.complete_batch([prompts[index]], greedy(6))
        assert isinstance(alone, Completion)
        assert alone.text == results[index].text  # type: ignore[union-attr]


def test_prompts_on_which_the_server_fails_take_no_good_one_with_them(
    completer: Completer,
) -> None:
    # Behind each 500 it closes the connection, which is about to carry another prompt.
    results = completer.complete_batch([BAD[0], HELLO] * 60, greedy(2))
    assert [type(each) for each in results] == [Unavailable, Completion] * 60
    assert all("500" in str(each) for each in results[::2])


def test_result_k_of_a_batch_is_sampled_with_the_kth_seed(one_at_a_time: Completer) -> None:
    prompts = [talk("one"), talk("two")]
    results = one_at_a_time.complete_batch(prompts, seeded(100, n=3))
    alone = [
        one_at_a_time.complete(prompts[k // 3], seeded(100 + k)).text for k in range(len(results))
    ]
    assert [result.text for result in results] == alone  # type: ignore[union-attr]
    assert len(set(alone)) == 6


def test_an_empty_batch_has_no_results(completer: Completer) -> None:
    assert completer.complete_batch([], greedy(1)) == []


def test_it_may_be_called_from_any_thread(completer: Completer) -> None:
    prompts = [talk(f"{index}") for index in range(16)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: completer.complete(prompt, greedy(5)), prompts))
    assert [each.text for each in together] == [
        completer.complete(prompt, greedy(5)).text for prompt in prompts
    ]


def test_logprobs_that_the_server_ignores_are_unsupported(completer: Completer) -> None:
    params = SamplingParams(max_tokens=4, logprobs=True)
    with pytest.raises(Unsupported, match="ignored `logprobs`"):
        completer.complete(HELLO, params)
    with pytest.raises(Unsupported, match="ignored `logprobs`"):
        list(completer.stream_complete(HELLO, params))
    [result] = completer.complete_batch([HELLO], params)
    assert isinstance(result, Unsupported)


def test_extensions_that_the_server_refuses_are_unsupported(
    served: dict[str, Any], connect: Callable[..., Completer]
) -> None:
    completer = connect(**served, extensions=True)
    for prompt in (HELLO, [1, 2, 3]):
        with pytest.raises(Unsupported, match="Unexpected fields"):
            completer.complete(prompt, greedy(4))


def test_a_model_that_is_not_served_is_not_found(completer: Completer) -> None:
    with pytest.raises(NotFound, match="another") as caught:
        completer.complete(HELLO, SamplingParams(max_tokens=4, model="another"))
    assert not caught.value.retryable


def test_a_ping_tells_whether_the_api_is_there(
    served: dict[str, Any], connect: Callable[..., Completer]
) -> None:
    connect(**served).ping()
    with pytest.raises(NotFound, match="base_url"):
        connect(base_url=served["base_url"].removesuffix("/v1")).ping()


def test_it_can_be_used_again_after_it_was_closed(completer: Completer) -> None:
    before = completer.complete(HELLO, greedy(4))
    completer.close()
    completer.close()
    assert completer.complete(HELLO, greedy(4)).text == before.text
