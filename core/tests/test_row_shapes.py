"""Which shape a row has, in the forms that people write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from crucible_kitchen import InvalidInput
from crucible_kitchen.workflows.rows.examples import Conversation, PromptCompletion, RowReader, Text

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
SHAREGPT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"messages": SHAREGPT},
        {"conversations": SHAREGPT},
        {"conversation": CHAT},
        {"messages": json.dumps(CHAT)},
        {"prompt": json.dumps(CHAT[:1]), "completion": json.dumps(CHAT[1:])},
        {"conversations": json.dumps(SHAREGPT)},
        {"messages": [{**CHAT[0], "name": None}, CHAT[1]], "prompt": "hi", "text": "a"},
        {"instruction": "hi", "input": "", "output": "yo"},
        {"instruction": "hi", "output": "yo", "text": "### Instruction: hi"},
    ],
)
def test_a_conversation_is_known_in_each_of_its_forms(row: dict[str, Any]) -> None:
    read = RowReader().read(row)
    assert isinstance(read, Conversation)
    assert read.messages == CHAT


def test_a_text_that_only_looks_like_a_conversation_is_a_text() -> None:
    for prompt in ("[1, 2]", "[note]", '[{"x": 1}]', "[]"):
        row = {"prompt": prompt, "completion": prompt}
        assert RowReader().read(row) == PromptCompletion(prompt, prompt)


def test_an_alpaca_row_keeps_its_input_its_system_and_its_history() -> None:
    row = {"instruction": "Sum", "input": "1 2", "output": "3", "system": "be brief"}
    read = RowReader().read({**row, "history": [["hi", "yo"]]})
    assert isinstance(read, Conversation)
    assert [(m["role"], m["content"]) for m in read.messages] == [
        ("system", "be brief"),
        ("user", "hi"),
        ("assistant", "yo"),
        ("user", "Sum\n1 2"),
        ("assistant", "3"),
    ]


def test_the_system_column_of_sharegpt_comes_first() -> None:
    read = RowReader().read({"system": "be nice", "conversations": SHAREGPT})
    assert isinstance(read, Conversation)
    assert read.messages == [{"role": "system", "content": "be nice"}, *CHAT]


def test_a_function_call_of_sharegpt_is_a_tool_call() -> None:
    said = {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'}
    read = RowReader().read({"conversations": [SHAREGPT[0], said]})
    assert isinstance(read, Conversation)
    assert read.messages[1] == {"role": "assistant", "tool_calls": [CALL], "content": ""}


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"x":1}', '{"x":1}'),
        ({"x": None}, {"x": None}),
    ],
)
def test_arguments_of_a_call_say_what_they_said(arguments: Any, read: Any) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    row = {"messages": [CHAT[0], {"role": "assistant", "content": None, "tool_calls": [call]}]}
    shape = RowReader().read(row)
    assert isinstance(shape, Conversation)
    assert shape.messages[1]["tool_calls"][0]["function"]["arguments"] == read


def test_a_call_without_arguments_has_none() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}
    shape = RowReader().read({"messages": [CHAT[0], call]})
    assert isinstance(shape, Conversation)
    assert shape.messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}


@pytest.mark.parametrize("written", [lambda value: value, json.dumps])
def test_tools_and_settings_of_the_template_may_be_json_text(written: Any) -> None:
    tools, kwargs = [{"name": "f"}], {"enable_thinking": False}
    read = RowReader().read(
        {"messages": CHAT, "tools": written(tools), "chat_template_kwargs": written(kwargs)}
    )
    assert read == Conversation(CHAT, 0, tools, kwargs)


def test_prompt_and_completion_may_be_texts_or_lists_of_messages() -> None:
    assert RowReader().read({"prompt": "a", "completion": "b"}) == PromptCompletion("a", "b")
    assert RowReader().read({"prompt": CHAT[:1], "completion": CHAT[1:]}) == Conversation(CHAT, 1)
    assert RowReader().read({"text": "abc"}) == Text("abc")


def test_a_setting_is_followed_whatever_other_fields_there_are() -> None:
    row = {"q": "a", "a": 7, "text": "License", "messages": CHAT, "chat": SHAREGPT, "body": "b"}
    asked = RowReader(prompt="{q}\n", completion=" {a}")
    assert asked.read(row) == PromptCompletion("a\n", " 7")
    assert RowReader(messages_field="chat").read(row) == Conversation(CHAT)
    assert RowReader(text_field="body").read(row) == Text("b")


@pytest.mark.parametrize(
    ("reader", "row", "message"),
    [
        (
            RowReader(prompt="{quesiton}", completion="{a}"),
            {"question": "q", "a": "b", "text": "License"},
            "no field 'quesiton', which the template prompt = .* names; it has 'question'",
        ),
        (
            RowReader(prompt="question", completion="{a}"),
            {"question": "q", "a": "b"},
            "prompt = 'question' is the name of a field; its value is written {question}",
        ),
        (RowReader(messages_field="chat"), {"messages": CHAT}, "no field 'chat'"),
        (RowReader(text_field="body"), {"text": "a"}, "no field 'body'"),
        (RowReader(text_field="text"), {"text": None}, "no field 'text'"),
        (RowReader(), {"prompt": "a", "completion": None}, "not both of 'prompt' and"),
        (RowReader(), {"a": 1}, "it has 'a'"),
        (RowReader(), {}, "it has nothing"),
        (RowReader(), {"prompt": CHAT, "completion": "2"}, "only prompt is a list"),
        (RowReader(), {"prompt": "1?", "completion": CHAT}, "only completion is a list"),
        (RowReader(prompt="{a}", completion="b"), {"a": ["x"]}, "a list cannot be written"),
        (RowReader(prompt="{a}", completion="b"), {"a": {"x": 1}}, "a dict cannot be written"),
        (RowReader(prompt="{a[x]}", completion="b"), {"a": {"x": None}}, "a null cannot be"),
        (RowReader(prompt="{a", completion="b"), {"a": "x"}, "does not fit"),
        (RowReader(prompt="{a.b}", completion="b"), {"a": "x"}, "does not fit"),
        (RowReader(), {"messages": "[1"}, "the conversation is a text that is not JSON"),
        (RowReader(), {"messages": "[" * 100_000}, "a text that is not JSON"),
        (
            RowReader(),
            {"messages": {"role": ["user"]}, "text": "a"},
            "list of messages, not a dict",
        ),
        (RowReader(), {"messages": ["hi"]}, "message 0 is a str, not a table of role and"),
        (RowReader(), {"messages": [{"role": "user"}]}, "the content of message 0 is missing"),
        (
            RowReader(),
            {"messages": [CHAT[0], {"role": "assistant", "content": None}]},
            "the content of message 1 is missing",
        ),
        (
            RowReader(),
            {"messages": [{"role": "user", "content": [{"type": "image", "url": "u"}]}]},
            "message 0 has a part of type 'image'; only text",
        ),
        (RowReader(), {"messages": [{"from": "cat", "value": "x"}]}, "from 'cat'; known are"),
        (RowReader(), {"messages": [{**CHAT[1], "weight": 0.5}]}, "it must be 0 or 1"),
        (RowReader(), {"messages": CHAT, "tools": "nope"}, "tools is a text that is not JSON"),
        (RowReader(), {"messages": CHAT, "tools": ["f"]}, "tools are a list of JSON schemas"),
        (RowReader(), {"messages": CHAT, "tools": [{"function": None}]}, "a list of JSON schemas"),
        (
            RowReader(),
            {"messages": [{**CHAT[1], "function_call": {"name": "f", "arguments": "{}"}}]},
            "message 0 has a function_call, which is now a list of tool_calls",
        ),
        (
            RowReader(),
            {"messages": [{**CHAT[1], "tool_calls": [{"function": {}}]}]},
            "a tool call has a function with a name",
        ),
    ],
)
def test_a_row_that_does_not_fit_is_refused_rather_than_guessed_at(
    reader: RowReader, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        reader.read(row)
