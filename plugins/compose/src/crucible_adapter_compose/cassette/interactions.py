"""The calls of a cassette with their answers, as its lines hold them, and the checkpoints that they
leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_kitchen import PORTS

from .answering import AnsweringObjects
from .contract import signature
from .failures import error_of
from .masks import MASK, has_masks
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


@dataclass(frozen=True, slots=True)
class _Event:
    """A checkpoint was saved, or deleted.

    Args:
        call: the call that did it.
        reference: of the checkpoint.
        label: under which it was saved; None if it was deleted.
        masked: whether the label goes on with what is not known.
    """

    call: Interaction
    reference: str
    label: str | None
    masked: bool = False


class Checkpoints:
    """The checkpoints of a recording.

    Args:
        calls: all calls of the cassette, in their order.
        recorded: returns a text in which what varies is as it was recorded, as far as it is known
            what that was.
    """

    def __init__(self, calls: Sequence[Interaction], recorded: Callable[[str], str]) -> None:
        self._recorded = recorded
        self._events = [*_events(calls)]
        self._saved = {each.reference for each in self._events if each.label is not None}
        self._sessions = [each for each in calls if each.name == "start_session"]
        self._lists = [
            (str(each.arguments.get("prefix", "")), {*map(str, value_of(returned))})
            for each in calls
            if each.name == "list_checkpoints"
            and isinstance(returned := each.outcome.get("returned"), list)
        ]

    def listed(self, prefix: str) -> list[str] | None:
        """Return the references of the checkpoints whose label starts with `prefix`, oldest first:
        what was saved so far and not deleted; where no session was started, as where a run is
        deleted, what the recording left.

        Returns:
            None where it is not known: a label is masked, or there may be checkpoints that were
            saved before the recording.
        """
        prefix = self._recorded(prefix)
        if not self._knows(prefix):
            return None
        begun = any(each.taken for each in self._sessions)
        there: dict[str, None] = {}
        for each in self._events:
            if begun and not each.call.taken:
                continue
            if each.label is None:
                there.pop(each.reference, None)
            elif each.label.startswith(prefix):
                there[each.reference] = None
        return [*there]

    def _knows(self, prefix: str) -> bool:
        if any(
            each.masked and prefix.startswith(each.label or "") and prefix != each.label
            for each in self._events
        ):
            return False
        near = [
            (asked, found)
            for asked, found in self._lists
            if asked.startswith(prefix) or prefix.startswith(asked)
        ]
        # A run's prefix is its own; without one, all that was there before is meant.
        all_known = bool(prefix) or any(asked == prefix for asked, _ in near)
        return all_known and all(found <= self._saved for _, found in near)


def _events(calls: Sequence[Interaction]) -> Iterator[_Event]:
    submitted: dict[int, Interaction] = {}
    """Checkpoints that are saved meanwhile, by the number of their future."""
    for each in calls:
        returned = each.outcome.get("returned")
        if each.name == "delete_checkpoint" and "raised" not in each.outcome:
            yield _Event(each, str(each.arguments.get("path")), None)
        elif each.name == "save_checkpoint_async" and isinstance(returned, dict):
            submitted[returned["$handle"]] = each
        elif each.name == "save_checkpoint" and isinstance(returned, str):
            yield _saved(each, each, returned)
        elif each.name == "await_" and isinstance(returned, str):
            yield _saved(each, submitted[each.arguments["future"]["$handle"]], returned)


def _saved(done: Interaction, asked: Interaction, reference: str) -> _Event:
    label = asked.arguments.get("path")
    if not isinstance(label, str):  # too long to be on the cassette
        return _Event(done, reference, "", masked=True)
    masked = has_masks(asked.outcome, label)
    return _Event(done, reference, label.partition(MASK)[0] if masked else label, masked)
