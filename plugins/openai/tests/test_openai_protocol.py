"""What the completer sends and how it reads answers that `transformers serve` never gives.

The stub's answers have the shapes that OpenAI and vLLM document.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest
from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    Completer,
    Completion,
    ImageChunk,
    InvalidInput,
    Kitchen,
    Message,
    ModelInput,
    NotFound,
    RateLimited,
    SamplingParams,
    Unauthorized,
    Unavailable,
    Unsupported,
    Usage,
)
from inference_stub import Exchange, Stub

HELLO: list[Message] = [{"role": "user", "content": "hello"}]
PARAMS = SamplingParams(max_tokens=8)
KEY = "sk-a-secret-key"

Connect = Callable[..., Completer]


def chat(text: str | None = "hi", finish_reason: str | None = "stop", **choice: Any) -> Any:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"message": message, "finish_reason": finish_reason, **choice}]}


def text(text: str, **choice: Any) -> Any:
    return {"choices": [{"text": text, "finish_reason": "stop", **choice}]}


def delta(text: str | None, finish_reason: str | None = None, **choice: Any) -> Any:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish_reason, **choice}]}


def chat_logprobs(*values: float) -> Any:
    return {"content": [{"token": "x", "logprob": value, "top_logprobs": []} for value in values]}


@pytest.fixture
def completer(stub: Stub, connect: Connect) -> Completer:
    stub.reply = lambda exchange: exchange.send(chat())
    return connect(base_url=stub.url, model="small", api_key=KEY)


@pytest.fixture
def vllm(stub: Stub, connect: Connect) -> Completer:
    return connect(base_url=stub.url, model="small", extensions=True)


# --- what is sent ---


def test_sampling_is_sent_even_where_it_is_the_default(completer: Completer, stub: Stub) -> None:
    assert completer.complete(HELLO, SamplingParams(max_tokens=8)).text == "hi"
    [seen] = stub.seen
    assert seen.path == "/v1/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.body == {
        "model": "small",
        "messages": HELLO,
        "max_tokens": 8,
        "temperature": 1.0,
        "top_p": 1.0,
    }


def test_every_parameter_has_its_field(vllm: Completer, stub: Stub) -> None:
    stub.reply = lambda exchange: exchange.send(
        chat(logprobs=chat_logprobs(-1.0), token_ids=[1])
        if "messages" in exchange.body
        else text("hi", logprobs={"token_logprobs": [-1.0]}, token_ids=[1])
    )
    given = {"max_tokens": 8, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 3}
    params = SamplingParams(**given, stop="x", logprobs=True, model="other")  # type: ignore[arg-type]
    expected = {
        **given,
        "model": "other",
        "stop": ["x"],
        "return_token_ids": True,
        # or vLLM takes these from the model's own configuration
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    vllm.complete(HELLO, params)
    vllm.complete([5, 6], params)
    assert stub.seen[0].body == {**expected, "messages": HELLO, "logprobs": True}
    assert stub.seen[1].path == "/v1/completions"
    assert stub.seen[1].body == {**expected, "prompt": [5, 6], "logprobs": 1}
    assert stub.seen[1].body["logprobs"] is not True  # which Python takes for 1, servers do not


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (None, {}),
        ((), {"ignore_eos": True}),
        ((7, 8), {"stop_token_ids": [7, 8]}),
        (("a", "b"), {"stop": ["a", "b"]}),
    ],
)
def test_each_kind_of_stop_has_its_field(
    vllm: Completer, stub: Stub, stop: Any, expected: dict[str, Any]
) -> None:
    stub.reply = lambda exchange: exchange.send(chat())
    vllm.complete(HELLO, SamplingParams(max_tokens=8, stop=stop))
    fields = {"stop", "stop_token_ids", "ignore_eos"}
    assert {k: v for k, v in stub.seen[0].body.items() if k in fields} == expected
    assert stub.seen[0].body["top_k"] == -1


@pytest.mark.parametrize(
    ("prompt", "change"),
    [
        (HELLO, {"top_k": 5}),
        (HELLO, {"stop": ()}),
        (HELLO, {"stop": (7,)}),
        ([1, 2], {}),
        (ModelInput.from_ints([1, 2]), {}),
    ],
)
def test_without_extensions_nothing_is_sent_that_would_be_ignored(
    completer: Completer, stub: Stub, prompt: Any, change: dict[str, Any]
) -> None:
    with pytest.raises(Unsupported, match="extensions"):
        completer.complete(prompt, SamplingParams(max_tokens=8, **change))
    with pytest.raises(Unsupported, match="extensions"):
        completer.stream_complete(prompt, SamplingParams(max_tokens=8, **change))
    assert stub.seen == []


def test_what_no_prompt_of_a_batch_can_be_asked_fails_the_batch(
    completer: Completer, stub: Stub, connect: Connect
) -> None:
    with pytest.raises(Unsupported, match="top_k"):
        completer.complete_batch([HELLO] * 3, SamplingParams(max_tokens=8, top_k=5))
    with pytest.raises(InvalidInput, match="no model is named"):
        connect(base_url=stub.url).complete_batch([HELLO] * 3, PARAMS)
    assert stub.seen == []


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ([], InvalidInput),
        ("hello", InvalidInput),
        (None, InvalidInput),
        ([-1], InvalidInput),
        ([1.5], InvalidInput),
        ([[1], [2]], InvalidInput),
        (ModelInput(()), InvalidInput),
        ([{"role": "user", "content": None}], InvalidInput),
        (ModelInput((ImageChunk(b"", "png", 4),)), Unsupported),
    ],
)
def test_what_is_not_a_prompt_is_refused_before_it_is_sent(
    vllm: Completer, stub: Stub, prompt: Any, error: type[AdapterError]
) -> None:
    with pytest.raises(error):
        vllm.complete(prompt, PARAMS)
    assert stub.seen == []


def test_n_is_for_batches(completer: Completer) -> None:
    params = SamplingParams(max_tokens=8, n=2)
    with pytest.raises(InvalidInput):
        completer.complete(HELLO, params)
    with pytest.raises(InvalidInput):
        completer.stream_complete(HELLO, params)


def test_the_limit_of_tokens_and_further_fields_can_be_named(stub: Stub, connect: Connect) -> None:
    stub.reply = lambda exchange: exchange.send(chat())
    connect(
        base_url=stub.url,
        model="small",
        max_tokens_field="max_completion_tokens",
        extra_body={"reasoning_effort": "low"},
    ).complete(HELLO, PARAMS)
    body = stub.seen[0].body
    assert body["max_completion_tokens"] == 8
    assert body["reasoning_effort"] == "low"
    assert "max_tokens" not in body


def test_address_and_key_come_from_the_ecosystems_variables(
    stub: Stub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.reply = lambda exchange: exchange.send(chat())
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    connect(model="small").complete(HELLO, PARAMS)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    connect(model="small").complete(HELLO, PARAMS)
    keys = [seen.headers["authorization"] for seen in stub.seen]
    assert keys == ["Bearer EMPTY", f"Bearer {KEY}"]


# --- what comes back ---


def test_token_ids_in_token_ids_out(vllm: Completer, stub: Stub) -> None:
    logprobs = {"tokens": ["h", "i", ""], "token_logprobs": [-0.5, -1.5, 0.0]}
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    stub.reply = lambda exchange: exchange.send(
        {**text("hi", token_ids=[8, 9, 2], logprobs=logprobs), "usage": usage}
    )
    params = SamplingParams(max_tokens=8, logprobs=True)
    prompts: list[Any] = [[5, 6], np.array([5, 6]), ModelInput.from_ints([5, 6])]
    for prompt in prompts:
        completion = vllm.complete(prompt, params)
        assert stub.seen.pop().body["prompt"] == [5, 6]
        assert completion.text == "hi"
        assert completion.tokens is not None
        assert completion.tokens.dtype == np.int64
        assert completion.tokens.tolist() == [8, 9, 2]
        assert completion.logprobs is not None
        assert completion.logprobs.dtype == np.float32
        assert completion.logprobs.tolist() == [-0.5, -1.5, 0.0]
        assert completion.usage == Usage(prompt_tokens=2, completion_tokens=3)


def test_chat_has_token_ids_and_logprobs_too(vllm: Completer, stub: Stub) -> None:
    stub.reply = lambda exchange: exchange.send(
        chat(token_ids=[8, 9], logprobs=chat_logprobs(-0.5, -1.5))
    )
    completion = vllm.complete(HELLO, SamplingParams(max_tokens=8, logprobs=True))
    assert completion.tokens is not None
    assert completion.tokens.tolist() == [8, 9]
    assert completion.logprobs is not None
    assert completion.logprobs.tolist() == [-0.5, -1.5]


def test_a_server_without_token_ids_cannot_be_asked_with_token_ids(
    vllm: Completer, stub: Stub
) -> None:
    stub.reply = lambda exchange: exchange.send(text("hi"))
    with pytest.raises(Unsupported, match="return_token_ids"):
        vllm.complete([5, 6], PARAMS)
    stub.reply = lambda exchange: exchange.stream([text("hi"), "[DONE]"])
    with pytest.raises(Unsupported, match="return_token_ids"):
        list(vllm.stream_complete([5, 6], PARAMS))


def test_tokens_and_logprobs_that_do_not_match_are_an_error(vllm: Completer, stub: Stub) -> None:
    stub.reply = lambda exchange: exchange.send(
        chat(token_ids=[8, 9], logprobs=chat_logprobs(-0.5))
    )
    with pytest.raises(AdapterError, match="1 log probabilities for 2 tokens"):
        vllm.complete(HELLO, SamplingParams(max_tokens=8, logprobs=True))


@pytest.mark.parametrize("stop", [None, ("cd",)])
def test_the_pieces_of_a_stream_add_up(
    vllm: Completer, stub: Stub, stop: tuple[str, ...] | None
) -> None:
    whole = text("abcde", token_ids=[1, 2, 3], logprobs={"token_logprobs": [-1.0, -2.0, -3.0]})
    pieces = [
        {"choices": [{"text": "", "prompt_token_ids": [5, 6]}]},
        {"choices": [{"text": "abc", "token_ids": [1], "logprobs": {"token_logprobs": [-1.0]}}]},
        {
            "choices": [
                {
                    "text": "de",
                    "token_ids": [2, 3],
                    "logprobs": {"token_logprobs": [-2.0, -3.0]},
                    "finish_reason": "stop",
                }
            ]
        },
        {"choices": [], "usage": {"prompt_tokens": 2}},
        "[DONE]",
    ]
    stub.reply = lambda exchange: (
        exchange.stream(pieces) if exchange.body.get("stream") else exchange.send(whole)
    )
    params = SamplingParams(max_tokens=8, logprobs=True, stop=stop)
    completion = vllm.complete([5, 6], params)
    chunks = list(vllm.stream_complete([5, 6], params))
    assert completion.text == "".join(chunk.text for chunk in chunks) == ("ab" if stop else "abcde")
    for field in ("tokens", "logprobs"):
        np.testing.assert_array_equal(
            getattr(completion, field), np.concatenate([getattr(each, field) for each in chunks])
        )
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("content_filter", "content_filter"),
        ("function_call", "tool_calls"),
    ],
)
def test_a_finish_reason_is_one_of_four(
    completer: Completer, stub: Stub, given: str, meant: str
) -> None:
    stub.reply = lambda exchange: exchange.send(chat(None, given))
    completion = completer.complete(HELLO, PARAMS)
    assert completion.finish_reason == meant
    assert completion.text == ""  # a refusal and a call of a tool have no content


@pytest.mark.parametrize("given", [None, "abort"])
def test_an_interrupted_completion_is_unavailable(
    completer: Completer, stub: Stub, given: str | None
) -> None:
    stub.reply = lambda exchange: exchange.send(chat("hal", given))
    with pytest.raises(Unavailable, match="broke off"):
        completer.complete(HELLO, PARAMS)


# --- answers as servers write them: parts, reasoning, nulls ---


def message(finish_reason: str = "stop", /, *, choice: Any = None, **fields: Any) -> Any:
    """Return an answer whose message has these fields."""
    said = {"role": "assistant", **fields}
    return {"choices": [{"message": said, "finish_reason": finish_reason, **(choice or {})}]}


def both_ways(
    completer: Completer, stub: Stub, answer: Any, params: SamplingParams = PARAMS
) -> tuple[Completion, Completion]:
    """Return what is made of an answer, and of a stream with the same message as one piece."""
    choice = answer["choices"][0]
    piece = {**choice, "delta": choice["message"], "finish_reason": None}
    del piece["message"]
    end = {"delta": None, "logprobs": None, "finish_reason": choice["finish_reason"]}
    events = [
        {"choices": [{"delta": {"role": "assistant", "content": None}, "finish_reason": None}]},
        {"choices": [piece], "usage": None},
        {"choices": [end]},
        {"choices": [], "usage": None},
        "[DONE]",
    ]
    stub.reply = lambda exchange: (
        exchange.stream(events) if exchange.body.get("stream") else exchange.send(answer)
    )
    chunks = list(completer.stream_complete(HELLO, params))

    def joined(field: str) -> Any:
        given = [value for each in chunks if (value := getattr(each, field)) is not None]
        return np.concatenate(given) if given else None

    streamed = Completion(
        "".join(chunk.text for chunk in chunks),
        joined("tokens"),
        joined("logprobs"),
        chunks[-1].finish_reason or "content_filter",
        reasoning="".join(chunk.reasoning or "" for chunk in chunks) or None,
    )
    return completer.complete(HELLO, params), streamed


TEXT = {"type": "text", "text": "It is "}
MORE = {"type": "text", "text": "4."}
THOUGHTS = {"type": "thinking", "thinking": [{"type": "text", "text": "2 + 2"}]}  # of Mistral


@pytest.mark.parametrize(
    ("fields", "text", "reasoning"),
    [
        ({"content": [TEXT, MORE]}, "It is 4.", None),
        ({"content": [{"text": "It is 4."}]}, "It is 4.", None),
        ({"content": [{"type": "output_text", "text": "It is 4."}]}, "It is 4.", None),
        ({"content": [TEXT, {"type": "text", "text": None}]}, "It is ", None),
        ({"content": []}, "", None),
        ({"content": [{"type": "refusal", "refusal": "I will not."}]}, "I will not.", None),
        ({"content": None, "refusal": "I will not."}, "I will not.", None),
        ({"content": "4", "refusal": None}, "4", None),
        ({}, "", None),
        ({"content": "4", "reasoning_content": "2 + 2"}, "4", "2 + 2"),  # DeepSeek, SGLang
        ({"content": "4", "reasoning": "2 + 2"}, "4", "2 + 2"),  # OpenRouter, vLLM, Ollama
        ({"content": "4", "reasoning": "2 + 2", "reasoning_content": "2 + 2"}, "4", "2 + 2"),
        ({"content": "4", "reasoning_content": None, "reasoning": "2 + 2"}, "4", "2 + 2"),
        ({"content": None, "reasoning_content": "2 + 2"}, "", "2 + 2"),  # cut while it thinks
        ({"content": [THOUGHTS, TEXT, MORE]}, "It is 4.", "2 + 2"),
        ({"content": [{"type": "thinking", "thinking": "2 + 2"}, MORE]}, "4.", "2 + 2"),
        ({"content": "<think>2 + 2</think>4"}, "<think>2 + 2</think>4", None),
    ],
)
def test_the_text_is_the_answer_and_reasoning_is_kept_separately(
    completer: Completer, stub: Stub, fields: dict[str, Any], text: str, reasoning: str | None
) -> None:
    for found in both_ways(completer, stub, message(**fields)):
        assert (found.text, found.reasoning) == (text, reasoning)
        assert found.finish_reason == "stop"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([TEXT, {"type": "image_url", "image_url": {"url": "data:"}}], "image_url"),
        ([{"type": "audio", "text": "It is 4."}], "audio"),
        ([TEXT, 7], "7"),
        ({"type": "image"}, "image"),
        (7, "7"),
    ],
)
def test_content_that_is_not_text_is_refused(
    completer: Completer, stub: Stub, content: Any, named: str
) -> None:
    stub.reply = lambda exchange: exchange.send(message(content=content))
    with pytest.raises(Unsupported, match=named):
        completer.complete(HELLO, PARAMS)
    stub.reply = lambda exchange: exchange.stream([delta(content), delta(None, "stop"), "[DONE]"])
    with pytest.raises(Unsupported, match=named):
        list(completer.stream_complete(HELLO, PARAMS))


def test_tokens_and_logprobs_are_those_of_reasoning_and_answer(vllm: Completer, stub: Stub) -> None:
    choice = {"token_ids": [8, 9, 2], "logprobs": chat_logprobs(-0.5, -1.5, -2.5)}
    answer = message(choice=choice, content="4", reasoning_content="2 + 2")
    for found in both_ways(vllm, stub, answer, SamplingParams(max_tokens=8, logprobs=True)):
        assert (found.text, found.reasoning) == ("4", "2 + 2")
        assert found.tokens is not None
        assert found.tokens.tolist() == [8, 9, 2]
        assert found.logprobs is not None
        assert found.logprobs.tolist() == [-0.5, -1.5, -2.5]


def test_reasoning_comes_in_pieces_of_its_own(completer: Completer, stub: Stub) -> None:
    thinking = [{"choices": [{"delta": {"reasoning_content": each}}]} for each in ("2 + ", "2")]
    stub.reply = lambda exchange: exchange.stream([*thinking, delta("4", "stop"), "[DONE]"])
    chunks = list(completer.stream_complete(HELLO, PARAMS))
    said = [(chunk.reasoning, chunk.text) for chunk in chunks]
    assert said == [("2 + ", ""), ("2", ""), (None, "4"), (None, "")]


def test_a_call_of_a_tool_has_no_text(completer: Completer, stub: Stub) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    for found in both_ways(completer, stub, message("tool_calls", content=None, tool_calls=[call])):
        assert (found.text, found.finish_reason) == ("", "tool_calls")


def test_a_refusal_has_the_logprobs_of_its_tokens(completer: Completer, stub: Stub) -> None:
    logprobs = {"content": None, "refusal": chat_logprobs(-0.5)["content"]}
    answer = message(choice={"logprobs": logprobs}, content=None, refusal="No.")
    for found in both_ways(completer, stub, answer, SamplingParams(max_tokens=8, logprobs=True)):
        assert found.text == "No."
        assert found.logprobs is not None
        assert found.logprobs.tolist() == [-0.5]


NO_LOGPROBS = {
    "null": None,
    "not a number": "NaN",
    "infinite": "-Infinity",
    "text": "-1.0",
    "a boolean": False,
    "not among the most likely": -9999.0,
    "a probability": 0.25,
    "missing": ...,
}


@pytest.mark.parametrize("what", NO_LOGPROBS)
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_not_a_logprob_is_refused_and_never_a_number(
    vllm: Completer, stub: Stub, what: str, place: int
) -> None:
    value = NO_LOGPROBS[what]
    if isinstance(value, str):  # as Python's JSON and servers' write it
        value = {"NaN": float("nan"), "-Infinity": float("-inf")}.get(value, value)
    params = SamplingParams(max_tokens=8, logprobs=True)
    tokens = chat_logprobs(-1.0, -1.0)
    if value is ...:
        del tokens["content"][place]["logprob"]
        value = None
    else:
        tokens["content"][place]["logprob"] = value
    values: list[Any] = [-1.0, -1.0]
    values[place] = value
    answers = {
        "/v1/chat/completions": message(choice={"token_ids": [5, 6], "logprobs": tokens}),
        "/v1/completions": text("ab", token_ids=[5, 6], logprobs={"token_logprobs": values}),
    }
    prompts: list[Any] = [HELLO, [1, 2]]
    for prompt in prompts:
        stub.reply = lambda exchange: exchange.send(answers[exchange.path])
        with pytest.raises(AdapterError, match=f"log probability of token {place} of 2"):
            vllm.complete(prompt, params)
        [result] = vllm.complete_batch([prompt], params)
        assert isinstance(result, AdapterError)
        stub.reply = lambda exchange: exchange.stream([answers[exchange.path], "[DONE]"])
        with pytest.raises(AdapterError, match=f"log probability of token {place} of 2"):
            list(vllm.stream_complete(prompt, params))


@pytest.mark.parametrize("given", [[None, 6], [5.7, 6], ["5", 6], [-1, 6], [True, 6], 5])
def test_what_are_no_token_ids_is_refused(vllm: Completer, stub: Stub, given: Any) -> None:
    stub.reply = lambda exchange: exchange.send(text("ab", token_ids=given))
    with pytest.raises(AdapterError, match="invalid token ids"):
        vllm.complete([1, 2], PARAMS)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ({"text": "", "token_ids": [2], "logprobs": None}, "ignored `logprobs`"),
        ({"text": "", "token_ids": [2]}, "ignored `logprobs`"),
        ({"text": "", "logprobs": {"token_logprobs": [-1.0]}}, "return_token_ids"),
        ({"text": "c", "token_ids": [], "logprobs": {"token_logprobs": []}}, "return_token_ids"),
    ],
)
def test_a_piece_without_the_logprobs_or_ids_of_its_tokens_is_refused(
    vllm: Completer, stub: Stub, last: dict[str, Any], said: str
) -> None:
    first = text("ab", token_ids=[5, 6], logprobs={"token_logprobs": [-1.0, -1.0]})
    first["choices"][0]["finish_reason"] = None
    end = {"choices": [{**last, "finish_reason": "stop"}]}
    stub.reply = lambda exchange: exchange.stream([first, end, "[DONE]"])
    with pytest.raises(Unsupported, match=said):
        list(vllm.stream_complete([1, 2], SamplingParams(max_tokens=8, logprobs=True)))


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": 3, "completion_tokens": None}, {"prompt_tokens": None}]
)
def test_usage_may_be_null_or_lack_a_number(completer: Completer, stub: Stub, usage: Any) -> None:
    stub.reply = lambda exchange: exchange.send({**chat("hi"), "usage": usage})
    assert completer.complete(HELLO, PARAMS).usage is None


def test_whatever_else_is_null_is_as_if_it_was_missing(completer: Completer, stub: Stub) -> None:
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "token_ids": None}
    choice |= {"text": None, "error": None}
    nulls = {"content": "hi", "refusal": None, "tool_calls": None, "reasoning": None}
    answer = {"error": None, "usage": None, "choices": [{**choice, "message": nulls}]}
    stub.reply = lambda exchange: exchange.send(answer)
    assert completer.complete(HELLO, PARAMS).text == "hi"
    events = [
        {"choices": None},
        {"choices": [{**choice, "delta": nulls, "finish_reason": None}]},
        {"choices": [{"delta": None, "finish_reason": "stop"}]},
        {"choices": [{"delta": {}, "finish_reason": None}]},
        {"choices": [], "usage": None},
        "[DONE]",
    ]
    stub.reply = lambda exchange: exchange.stream(events)
    chunks = list(completer.stream_complete(HELLO, PARAMS))
    assert [(chunk.text, chunk.finish_reason) for chunk in chunks] == [("hi", None), ("", "stop")]


def test_an_error_within_a_choice_is_passed_on(completer: Completer, stub: Stub) -> None:
    error = {"code": 502, "message": "the provider went away"}
    answer = {"choices": [{**chat("ha", "error")["choices"][0], "error": error}]}
    stub.reply = lambda exchange: exchange.send(answer)
    with pytest.raises(Unavailable, match="the provider went away"):
        completer.complete(HELLO, PARAMS)
    stub.reply = lambda exchange: exchange.stream(
        [delta("ha"), {"error": error, **delta("", "error")}, "[DONE]"]
    )
    with pytest.raises(Unavailable, match="the provider went away"):
        list(completer.stream_complete(HELLO, PARAMS))


# --- what goes wrong ---


def failing(
    status: int, error: Any = None, headers: dict[str, str] | None = None
) -> Callable[[Exchange], None]:
    body = {"error": {"message": "told you", **(error or {})}}
    return lambda exchange: exchange.send(body, status, headers or {})


@pytest.mark.parametrize(
    ("status", "error", "expected", "retryable"),
    [
        (400, {"code": "context_length_exceeded"}, InvalidInput, False),
        (422, {}, InvalidInput, False),
        (400, {"code": "unsupported_parameter"}, Unsupported, False),
        (401, {}, Unauthorized, False),
        (403, {}, Unauthorized, False),
        (404, {"code": "model_not_found"}, NotFound, False),
        (408, {}, AdapterTimeout, True),
        (418, {}, AdapterError, False),
        (429, {"code": "rate_limit_exceeded"}, RateLimited, True),
        (429, {"code": "insufficient_quota"}, RateLimited, False),
        (402, {}, RateLimited, False),
        (500, {}, Unavailable, True),
        (503, {}, Unavailable, True),
    ],
)
def test_each_status_is_its_error(
    completer: Completer,
    stub: Stub,
    status: int,
    error: dict[str, str],
    expected: type[AdapterError],
    retryable: bool,
) -> None:
    stub.reply = failing(status, error)
    for call in (
        lambda: completer.complete(HELLO, PARAMS),
        lambda: list(completer.stream_complete(HELLO, PARAMS)),
    ):
        with pytest.raises(AdapterError, match=f"{status}: told you") as caught:
            call()
        assert type(caught.value) is expected
        assert caught.value.retryable is retryable
        assert caught.value.details == {"status": status, "code": error.get("code")}
    assert len(stub.seen) == 2  # nothing was sent again


def test_the_wait_that_a_server_asks_for_is_passed_on(completer: Completer, stub: Stub) -> None:
    for header, least, most in [
        ("7.5", 7.5, 7.5),
        (formatdate(time.time() + 100, usegmt=True), 1, 100),
        (formatdate(time.time() - 100, usegmt=True), 0, 0),
    ]:
        stub.reply = failing(429, headers={"retry-after": header})
        with pytest.raises(RateLimited) as caught:
            completer.complete(HELLO, PARAMS)
        assert caught.value.retry_after is not None
        assert least <= caught.value.retry_after <= most
    for headers in ({}, {"retry-after": "soon"}, {"retry-after": "nan"}):
        stub.reply = failing(429, headers=headers)
        with pytest.raises(RateLimited) as caught:
            completer.complete(HELLO, PARAMS)
        assert caught.value.retry_after is None


def test_no_error_shows_the_key(completer: Completer, stub: Stub) -> None:
    stub.reply = failing(401, {"message": f"the key {KEY} is wrong"})
    [result] = completer.complete_batch([HELLO], PARAMS)
    assert isinstance(result, Unauthorized)
    with pytest.raises(Unauthorized) as caught:
        completer.complete(HELLO, PARAMS)
    for error in (result, caught.value):
        assert "is wrong" in str(error)
        assert KEY not in str(error)
        assert error.__cause__ is None
    assert KEY not in repr(completer.options)


def test_a_server_that_says_nothing_is_given_up(stub: Stub, connect: Connect) -> None:
    completer = connect(base_url=stub.url, model="small", timeout=0.2)

    def silent(exchange: Exchange) -> None:
        stub.over.wait()

    stub.reply = silent
    start = time.monotonic()
    with pytest.raises(AdapterTimeout, match=r"0\.2 s"):
        completer.complete(HELLO, PARAMS)
    assert time.monotonic() - start < 10
    assert len(stub.seen) == 1

    def starts(exchange: Exchange) -> None:
        def events() -> Iterator[Any]:
            yield delta("ha")
            stub.over.wait()

        exchange.stream(events())

    stub.reply = starts
    stream = completer.stream_complete(HELLO, PARAMS)
    assert next(stream).text == "ha"
    with pytest.raises(AdapterTimeout, match=r"0\.2 s"):
        next(stream)


def test_a_server_that_is_not_there_is_unavailable(connect: Connect) -> None:
    completer = connect(base_url="http://127.0.0.1:9/v1", model="small")
    for call in (lambda: completer.complete(HELLO, PARAMS), completer.ping):
        with pytest.raises(Unavailable, match="refused") as caught:
            call()
        assert caught.value.retryable


@pytest.mark.parametrize(
    ("events", "cut", "said"),
    [
        ([delta("ha")], True, "hung up"),
        ([delta("ha")], False, "broke off"),
        ([delta("ha"), "[DONE]"], False, "broke off"),
        ([delta("ha"), delta("lf", "abort"), "[DONE]"], False, "abort"),
        ([delta("ha"), {"error": {"message": "out of memory"}}], False, "out of memory"),
        ([delta("ha"), {"error": "out of memory"}], False, "out of memory"),
        ([delta("ha"), '{"error": "say "no""}'], False, "cannot be read"),
    ],
)
def test_a_stream_that_breaks_off_never_looks_like_a_short_text(
    completer: Completer, stub: Stub, events: list[Any], cut: bool, said: str
) -> None:
    stub.reply = lambda exchange: exchange.stream(events, cut)
    stream = completer.stream_complete(HELLO, PARAMS)
    assert next(stream).text == "ha"
    reasons: list[Any] = []
    with pytest.raises(Unavailable, match=said):
        reasons.extend(chunk.finish_reason for chunk in stream)
    assert set(reasons) <= {None}


def test_an_answer_that_is_none_says_what_to_look_at(completer: Completer, stub: Stub) -> None:
    stub.reply = lambda exchange: exchange.send("<html>Welcome!</html>", kind="text/html")
    with pytest.raises(AdapterError, match=r"base_url.*Welcome"):
        completer.complete(HELLO, PARAMS)
    with pytest.raises(AdapterError, match="base_url"):
        completer.ping()
    stub.reply = lambda exchange: exchange.send({"choices": []})
    with pytest.raises(AdapterError, match="without a completion"):
        completer.complete(HELLO, PARAMS)
    stub.reply = lambda exchange: exchange.send({"error": {"message": "provider is down"}})
    with pytest.raises(Unavailable, match="provider is down"):
        completer.complete(HELLO, PARAMS)


def test_an_address_without_a_scheme_is_refused_when_it_is_bound() -> None:
    import crucible_adapter_openai.completer as adapter
    from crucible_kitchen import ConfigurationError

    with pytest.raises(ConfigurationError, match="base_url"):
        _ = Kitchen(
            adapters={"completer": {"use": adapter, "base_url": "localhost:8000"}}
        ).completer


def test_a_request_is_sent_again_only_where_that_was_asked_for(
    stub: Stub, connect: Connect
) -> None:
    completer = connect(base_url=stub.url, model="small", max_retries=1)
    stub.reply = lambda exchange: (
        failing(429, headers={"retry-after-ms": "1"})(exchange)
        if len(stub.seen) % 2
        else exchange.send(chat())
    )
    assert completer.complete(HELLO, PARAMS).text == "hi"
    assert len(stub.seen) == 2


def test_a_request_is_sent_once_more_where_the_server_hung_up_instead_of_answering(
    completer: Completer, stub: Stub
) -> None:
    def hang_up(exchange: Exchange) -> None:
        exchange.close_connection = True

    stub.reply = lambda exchange: (
        hang_up(exchange) if len(stub.seen) == 1 else exchange.send(chat())
    )
    assert completer.complete(HELLO, PARAMS).text == "hi"
    assert len(stub.seen) == 2
    stub.seen.clear()
    stub.reply = hang_up
    for call in (
        lambda: completer.complete(HELLO, PARAMS),
        lambda: list(completer.stream_complete(HELLO, PARAMS)),
    ):
        with pytest.raises(Unavailable, match="hung up"):
            call()
    assert len(stub.seen) == 4


def test_a_ping_is_one_quick_question(stub: Stub, connect: Connect) -> None:
    completer = connect(base_url=stub.url, max_retries=3)
    stub.reply = lambda exchange: exchange.send({"object": "list", "data": []})
    completer.ping()
    assert [seen.path for seen in stub.seen] == ["/v1/models"]
    for status, error in ((401, Unauthorized), (500, Unavailable)):
        stub.reply = failing(status)
        with pytest.raises(error):
            completer.ping()
    assert len(stub.seen) == 3


# --- batches and streams ---


def test_a_batch_has_as_many_requests_in_flight_as_allowed_and_no_more(
    stub: Stub, connect: Connect
) -> None:
    together = threading.Barrier(4)
    lock = threading.Lock()
    running: list[int] = [0]
    most: list[int] = [0]

    def reply(exchange: Exchange) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        together.wait(30)  # breaks unless four come at once
        stub.over.wait(0.2)  # time for a fifth
        with lock:
            running[0] -= 1
        exchange.send(chat(exchange.body["messages"][0]["content"]))

    stub.reply = reply
    completer = connect(base_url=stub.url, model="small", max_concurrency=4)
    prompts: list[Any] = [[{"role": "user", "content": f"{index}"}] for index in range(12)]
    results = completer.complete_batch(prompts, PARAMS)
    assert [each.text for each in results if isinstance(each, Completion)] == [
        f"{index}" for index in range(12)
    ]
    assert most == [4]


def test_a_batch_asks_for_each_completion_with_a_seed_of_its_own(
    completer: Completer, stub: Stub
) -> None:
    prompts: list[Any] = [[{"role": "user", "content": name}] for name in "ab"]
    completer.complete_batch(prompts, SamplingParams(max_tokens=8, seed=40, n=3))
    sent = sorted((seen.body["seed"], seen.body["messages"][0]["content"]) for seen in stub.seen)
    assert sent == [(40, "a"), (41, "a"), (42, "a"), (43, "b"), (44, "b"), (45, "b")]
    assert all("n" not in seen.body for seen in stub.seen)


def test_a_prompt_that_cannot_even_be_sent_does_not_lose_the_rest(completer: Completer) -> None:
    odd: Any = [{"role": "user", "content": "hello", "name": object()}]
    good, bad = completer.complete_batch([HELLO, odd], PARAMS)
    assert isinstance(good, Completion)
    assert isinstance(bad, AdapterError)
    assert bad.port == "completer"


def test_leaving_a_stream_early_hangs_up(completer: Completer, stub: Stub) -> None:
    hung_up = threading.Event()

    def reply(exchange: Exchange) -> None:
        def events() -> Iterator[Any]:
            while not stub.over.is_set():
                yield delta("ha" * 1000)

        try:
            exchange.stream(events())
        except OSError:
            hung_up.set()

    stub.reply = reply
    with completer.stream_complete(HELLO, PARAMS) as stream:
        next(stream)
    assert hung_up.wait(30)


def test_a_stream_that_is_never_read_asks_nothing(completer: Completer, stub: Stub) -> None:
    completer.stream_complete(HELLO, PARAMS).close()
    assert stub.seen == []
