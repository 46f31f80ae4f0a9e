"""Conversations of several kinds, in which no two messages share a word that matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crucible_kitchen.workflows.config import TrainOn

Message = Mapping[str, Any]


def system(content: str) -> Message:
    return {"role": "system", "content": content}


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str | None, **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


def tool(content: str, call: str) -> Message:
    return {"role": "tool", "name": "lookup_weather", "tool_call_id": call, "content": content}


def call(city: str, id: str) -> Mapping[str, Any]:
    function = {"name": "lookup_weather", "arguments": {"city": city, "days": 3}}
    return {"id": id, "type": "function", "function": function}


LOOKUP_WEATHER = {
    "type": "function",
    "function": {
        "name": "lookup_weather",
        "description": "Forecast.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "where"},
                "days": {"type": "integer", "description": "how long"},
            },
            "required": ["city"],
        },
    },
}


@dataclass(frozen=True, eq=False)
class Kind:
    """A conversation, and what has to be trained on.

    Args:
        name: of its column in the table.
        messages: its turns.
        tools: what the model is shown.
        train_on: which answers count.
    """

    name: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    train_on: TrainOn = "all_assistant_messages"

    @property
    def row(self) -> dict[str, Any]:
        row: dict[str, Any] = {"messages": list(self.messages)}
        return {**row, "tools": list(self.tools)} if self.tools else row

    @property
    def answers(self) -> list[int]:
        """The places of the answers that are trained on."""
        places = [at for at, message in enumerate(self.messages) if message["role"] == "assistant"]
        return places[-1:] if self.train_on == "last_assistant_message" else places


_TURNS = (
    user("Name a harbour."),
    assistant("Bergen lies north."),
    user("Name a meadow."),
    assistant("Runnymede is green."),
    user("Name a glacier."),
    assistant("Aletsch is long."),
)

KINDS = (
    Kind("one turn", _TURNS[:2]),
    Kind("several turns", _TURNS[:4]),
    Kind("system", (system("Be brief, captain."), *_TURNS[:4])),
    Kind(
        "tools",
        (
            user("Forecast for tomorrow?"),
            assistant(None, tool_calls=[call("Ulaanbaatar", "lookup001")]),
            tool("overcast", "lookup001"),
            assistant("Take umbrellas."),
        ),
        tools=(LOOKUP_WEATHER,),
    ),
    Kind(
        "think",
        (
            _TURNS[0],
            assistant("<think>\nPorts come to mind\n</think>\n\nBergen lies north."),
            _TURNS[2],
            assistant("<think>\nPastures, rather\n</think>\n\nRunnymede is green."),
        ),
    ),
    Kind(
        "reasoning",
        (
            _TURNS[0],
            assistant("Bergen lies north.", reasoning_content="Ports come to mind"),
            _TURNS[2],
            assistant("Runnymede is green.", reasoning_content="Pastures, rather"),
        ),
    ),
    Kind("last answer only", _TURNS, train_on="last_assistant_message"),
    Kind("all answers", _TURNS),
)
