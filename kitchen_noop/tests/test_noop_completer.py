"""The completer that makes words up keeps every promise of its port."""

from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    AdapterError,
    Completer,
    Completion,
    EncodedTextChunk,
    ImageChunk,
    InvalidInput,
    Kitchen,
    ModelInput,
    NotFound,
    SamplingParams,
    Unavailable,
)
from hypothesis import given
from hypothesis import strategies as st

from kitchen_noop import CharTokenizer, completer

TOKENIZER = CharTokenizer()
CHAT = [{"role": "user", "content": "What is 1 + 1?"}]


def noop(**options: Any) -> Completer:
    table = {"use": completer, "latency_scale": 0, **options}
    return Kitchen(adapters={"completer": table}).completer


def shown(results: list[Completion | AdapterError]) -> list[Any]:
    return [r.text if isinstance(r, Completion) else type(r) for r in results]


def tokens_of(completion: Completion) -> list[int]:
    assert completion.tokens is not None
    assert completion.tokens.dtype == np.int64
    return completion.tokens.tolist()  # type: ignore[no-any-return]


def test_a_conversation_token_ids_and_a_model_input_are_one_prompt() -> None:
    ids = TOKENIZER.apply_chat_template(CHAT, add_generation_prompt=True)  # type: ignore[arg-type]
    params = SamplingParams(50, seed=1)
    prompts = [CHAT, ids, tuple(ids), np.asarray(ids), ModelInput.from_ints(ids)]
    texts = {noop().complete(prompt, params).text for prompt in prompts}  # type: ignore[arg-type]
    assert len(texts) == 1


def test_the_text_may_be_an_option() -> None:
    completion = noop(completion_text="the answer is 42").complete([1], SamplingParams(100))
    assert completion.text == "the answer is 42"
    assert completion.finish_reason == "stop"
    assert tokens_of(completion) == [*TOKENIZER.encode("the answer is 42"), TOKENIZER.eos_token_id]


def test_the_completion_ends_after_max_tokens() -> None:
    completion = noop(completion_text="0123456789").complete([1, 2, 3], SamplingParams(4))
    assert (completion.text, completion.finish_reason) == ("0123", "length")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 4)


@pytest.mark.parametrize(
    ("stop", "text", "tokens", "reason"),
    [
        (("cd",), "ab", "abcd", "stop"),
        (("d", "bcd"), "a", "abcd", "stop"),
        (tuple(TOKENIZER.encode("c")), "ab", "abc", "stop"),
        (("zz",), "abcde", "abcde<|im_end|>", "stop"),
        (None, "abcde", "abcde<|im_end|>", "stop"),
        ((), "abcdeabc", "abcde<|im_end|>abc", "length"),
    ],
)
def test_a_completion_stops_at_its_stops(stop: Any, text: str, tokens: str, reason: str) -> None:
    completion = noop(completion_text="abcde").complete([1], SamplingParams(9, stop=stop))
    assert completion.text == text
    assert TOKENIZER.decode(tokens_of(completion)) == tokens
    assert completion.finish_reason == reason


BAD_PROMPTS: list[Any] = [
    [],
    "text",
    [[1], [2, 3]],
    [1, -1],
    [{"role": "user"}],
    [{"role": "user", "content": "x"}, 3],
    [1] * 64,
    ModelInput((ImageChunk(b"", "png", 100),)),
]


@pytest.mark.parametrize("prompt", BAD_PROMPTS)
def test_a_bad_prompt_is_invalid(prompt: Any) -> None:
    with pytest.raises(InvalidInput):
        noop(context_length=64).complete(prompt, SamplingParams(1))


@pytest.mark.parametrize("prompt", BAD_PROMPTS)
def test_a_bad_prompt_does_not_lose_the_rest_of_its_batch(prompt: Any) -> None:
    params = SamplingParams(5, n=2)
    results = noop(context_length=64, completion_text="ok").complete_batch(
        [[1], prompt, [2]], params
    )
    assert shown(results) == ["ok", "ok", InvalidInput, InvalidInput, "ok", "ok"]


def test_a_completion_ends_with_the_context() -> None:
    completion = noop(context_length=10).complete([1] * 7, SamplingParams(50, stop=()))
    assert (len(tokens_of(completion)), completion.finish_reason) == (3, "length")


@given(
    seed=st.integers(0, 1000),
    max_tokens=st.integers(1, 200),
    stop=st.sampled_from([None, (), ("the",), (" ", "a"), (100,)]),
    logprobs=st.booleans(),
)
def test_a_stream_adds_up_to_the_completion(
    seed: int, max_tokens: int, stop: Any, logprobs: bool
) -> None:
    port = noop()
    params = SamplingParams(max_tokens, seed=seed, stop=stop, logprobs=logprobs)
    whole, chunks = port.complete(CHAT, params), list(port.stream_complete(CHAT, params))  # type: ignore[arg-type]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    np.testing.assert_array_equal(np.concatenate([c.tokens for c in chunks]), whole.tokens)
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == whole.finish_reason
    if logprobs:
        np.testing.assert_array_equal(np.concatenate([c.logprobs for c in chunks]), whole.logprobs)


def test_scores_are_one_fewer_than_tokens() -> None:
    port = noop()
    image = ModelInput((EncodedTextChunk(np.asarray([1])), ImageChunk(b"", "png", 1)))
    scores = port.score([[3, 4, 5], [3], ModelInput.from_ints([3, 4])], model="teacher")
    assert [score.shape for score in scores] == [(2,), (0,), (1,)]
    assert all(score.dtype == np.float32 for score in scores)
    np.testing.assert_array_equal(scores[0][:1], scores[2])
    assert not np.array_equal(scores[0], port.score([[3, 4, 5]], model="student")[0])
    bad: Any
    for bad in ([], image):
        with pytest.raises(InvalidInput):
            port.score([bad])


def test_the_model_of_requests_that_name_none_is_an_option() -> None:
    scores = [noop(model=model).score([[3, 4, 5]])[0].tolist() for model in ("a", "b")]
    assert scores == [noop().score([[3, 4, 5]], model=model)[0].tolist() for model in ("a", "b")]
    params = SamplingParams(5, seed=0, logprobs=True)
    a, b = (noop(model=model).complete([3], params).logprobs for model in ("a", "b"))
    assert a is not None
    assert b is not None
    assert not np.array_equal(a, b)


def test_a_reference_that_was_tampered_with_is_not_found() -> None:
    with pytest.raises(NotFound):
        noop().complete([1], SamplingParams(1, model="noop://named/0/x?steps=many"))


def test_failures_are_results_of_a_batch_and_may_be_tried_again() -> None:
    results = noop(failure_rate=0.5).complete_batch([[1]], SamplingParams(5, n=40))
    failures = [result for result in results if isinstance(result, AdapterError)]
    assert 5 < len(failures) < 35
    assert all(isinstance(f, Unavailable) and f.retryable and f.no_effect for f in failures)
    assert {f.callback for f in failures} == {"complete_batch"}


def test_a_batch_takes_as_long_as_its_longest_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    port = noop(latency_scale=1, completion_text="x" * 99)
    port.complete_batch([[1]] * 50, SamplingParams(200))
    port.complete([1], SamplingParams(200))
    assert len(slept) == 2
    assert slept[0] == slept[1] < 0.1
