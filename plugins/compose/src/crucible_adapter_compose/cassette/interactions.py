"""The calls of a cassette with their answers, as its lines hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_kitchen import PORTS

from .answering import AnsweringObjects
from .contract import signature
from .failures import error_of
from .missing import NotOnCassette, counted
from .values import Json, Unreadable, value_of


@dataclass(slots=True)
class Interaction:
    """A call, and its answer."""

    number: int
    name: str
    arguments: dict[str, Json]
    outcome: Mapping[str, Any]
    items: list[Json] = field(default_factory=list)
    ended: Json = "left"
    taken: bool = False
    follows: list[Interaction] = field(default_factory=list)
    """Of a call that left the rest of its data unread: the earlier ones that differ in their data
    alone."""

    def says(self) -> Json:
        """Return the answer as JSON."""
        said = {name: self.outcome.get(name) for name in (*_OUTCOMES, "wrote")}
        return [said, self.items, self.ended]


_OUTCOMES = ("returned", "raised", "streams")
"""One of which the line of a call has."""


def interactions_of(
    file: Path, port: str, lines: Iterable[Mapping[str, Any]], objects: AnsweringObjects
) -> tuple[list[str], list[Interaction]]:
    """Return the callbacks that the recorded adapter had, and its calls in their order.

    Args:
        file: the cassette, for messages.
        port: the port's name.
        lines: all lines but the last.
        objects: takes those about helpers, and what they returned.

    Raises:
        Unreadable: a line lacks something.
    """
    calls: dict[int, Interaction] = {}
    known = PORTS[port].callbacks()
    callbacks: list[str] = []
    at = 0
    try:
        for line in lines:
            at += 1
            if at == 1:
                callbacks += (name for name in line["callbacks"] if name in known)
            elif "call" in line:
                _load(port, line, calls)
            else:
                objects.add(line)
    except Unreadable:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise Unreadable(
            f"{file} is damaged in line {at}: it lacks, or has in a wrong form, {error}"
        ) from None
    return callbacks, sorted(calls.values(), key=lambda each: each.number)


def _load(port: str, line: Mapping[str, Any], calls: dict[int, Interaction]) -> None:
    """Take note of a line about a call; what is missing is better found now than at the call."""
    if "item" in line:
        calls[line["call"]].items.append(line["item"])
    elif "ended" in line:
        calls[line["call"]].ended = ended = line["ended"]
        if isinstance(ended, dict):
            error_of(ended["raised"], value_of)
    else:
        number, name = int(line["call"]), line["name"]
        known = signature(port, name)
        arguments = dict(line["arguments"])
        if "session" in known.handles:
            _ = arguments["session"]
        if isinstance(data := arguments.get("data"), dict) and data.get("left"):
            _ = data["$bytes"] + 0
        if "raised" in line:
            error_of(line["raised"], value_of)
        elif "streams" not in line and known.returns_handle:
            _ = line["returned"]["$handle"]
        elif "streams" not in line:
            _ = line["returned"]
        calls[number] = Interaction(number, name, arguments, line)


class ReplayedStream(Iterator[Any]):
    """The items of a stream, and its end."""

    def __init__(self, recorded: Interaction, file: Path) -> None:
        self._recorded, self._file = recorded, file
        self._items = iter(recorded.items)

    def __next__(self) -> Any:
        for item in self._items:
            return value_of(item)
        ended = self._recorded.ended
        if ended == "exhausted":
            raise StopIteration
        if isinstance(ended, dict):
            raise error_of(ended["raised"], value_of)
        count = counted(len(self._recorded.items), "item")
        raise NotOnCassette(
            f"{self._file} has {count} of this {self._recorded.name}, which was left there "
            f"when it was recorded; {NotOnCassette.ADVICE}"
        )
