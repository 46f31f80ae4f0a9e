"""Replaying: each call is looked up, and answered as it was when it was recorded."""

from __future__ import annotations

import inspect
import json
import re
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_kitchen import PORTS, Unsupported, helper, hookimpl

from .arguments import Arguments
from .contract import signature
from .failures import error_of
from .files import Files
from .handles import RecordedHandle
from .lookup import Lookup, Match
from .missing import NotOnCassette, ambiguous, explained
from .objects import ADAPTER, AnsweringObjects
from .tape import lines_of
from .values import Json, Plain, Unreadable, unrecordable, value_of

VARYING = (
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",  # a UUID
    # The same without dashes, of a version that is random; of digests, few look like it.
    r"(?<![0-9a-z])[0-9a-f]{12}[47][0-9a-f]{3}[89ab][0-9a-f]{15}(?![0-9a-z])",
    r"\d{8}-\d{6}-[0-9a-f]{6}",  # the id of a run that was given none
    # In the labels of a run's checkpoints; the number of a step, and a date, are not random.
    r"(?:(?<=/)|(?<=%2F))(?!0000\d{4}|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01]))"
    r"[0-9a-f]{8}(?=/|%2F)",
)
"""Parts of texts that differ from run to run by their nature."""

_OF_BACKENDS: Mapping[str, Any] = {"clean": (), "close": None, "ping": None}
"""Answers of callbacks that are about a backend: there is nothing to remove, and to reach."""


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


@dataclass(slots=True)
class Answers:
    """All answers to one question, and those that were not given yet, in their order."""

    all: list[Interaction] = field(default_factory=list)
    left: deque[Interaction] = field(default_factory=deque)


_CLOSED = Interaction(0, "close_session", {}, {"returned": None})


class Player:
    """An adapter that answers from a cassette. It has the callbacks that the recorded one had.

    Args:
        file: the cassette.
        port: the port's name.
        varying: regular expressions of further parts of texts that are not compared.
        ordered: whether calls must come in the order in which they were recorded.

    Raises:
        ValueError: the cassette cannot be replayed.
    """

    def __init__(
        self, file: Path, port: str, varying: Sequence[str] = (), ordered: bool = False
    ) -> None:
        header, *lines = lines_of(file, port)
        self.__name__ = f"recorded {header.get('adapter')}"
        self._file, self._port, self._id = file, port, str(header.get("id"))
        self._files = Files.of(file, 0)
        self._objects = AnsweringObjects(self._id, str(file))
        self._lock = threading.Lock()
        self._changes: dict[Json, int] = defaultdict(int)
        self._asked: dict[str, int] = defaultdict(int)
        self._ordered = ordered
        self._calls: dict[int, Interaction] = {}
        """Those that were not asked for yet, in their order."""
        expression = re.compile("|".join(f"(?:{each})" for each in (*VARYING, *varying)))
        self._waiting: Lookup[Answers] = Lookup(expression, self._texts_of_answers)
        self._beginnings: dict[str, list[int]] = {}
        """Bytes after which data in pieces was left unread, by callback, in ascending order."""
        names = self._load([header, *lines])
        for name in names:
            setattr(self, name, self._callback(name))
        for name in self._objects.helpers:
            setattr(self, name, self._helper(name))

    def _load(self, lines: Sequence[Mapping[str, Any]]) -> list[str]:
        """Take note of all lines; return the callbacks that the recorded adapter had."""
        callbacks: list[str] = []
        calls: dict[int, Interaction] = {}
        try:
            for at, line in enumerate(lines, 1):
                if at == 1:
                    callbacks = [x for x in line["callbacks"] if x in PORTS[self._port].callbacks()]
                elif "call" in line:
                    self._load_call(line, calls)
                else:
                    self._objects.add(line)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise Unreadable(
                f"{self._file} is damaged in line {at}: it lacks, or has in a wrong form, {error}"
            ) from None
        self._queue(sorted(calls.values(), key=lambda each: each.number))
        return callbacks

    def _load_call(self, line: Mapping[str, Any], calls: dict[int, Interaction]) -> None:
        if "item" in line:
            calls[line["call"]].items.append(line["item"])
        elif "ended" in line:
            calls[line["call"]].ended = ended = line["ended"]
            if isinstance(ended, dict):
                error_of(ended["raised"], value_of)
        else:
            number, name = int(line["call"]), line["name"]
            known = signature(self._port, name)
            arguments = dict(line["arguments"])
            if "session" in known.handles:
                _ = arguments["session"]
            if (data := arguments.get("data") or {}).get("left"):
                _ = data["$bytes"] + 0
            if "raised" in line:
                error_of(line["raised"], value_of)
            elif "streams" not in line and known.returns_handle:
                _ = line["returned"]["$handle"]
            elif "streams" not in line:
                _ = line["returned"]
            calls[number] = Interaction(number, name, arguments, line)

    def _queue(self, calls: Sequence[Interaction]) -> None:
        rests: dict[str, list[Interaction]] = defaultdict(list)
        for each in calls:
            place = self._place(each.name, each.arguments)
            self._passed(each.name, each.arguments)
            if not _can_be_replayed(each):
                continue
            answers = self._waiting.add(place, Answers(), each.outcome.get("secrets", 0))
            answers.all.append(each)
            if isinstance(data := each.arguments.get("data"), dict):
                earlier = rests[_text([each.name, {**each.arguments, "data": None}])]
                if data.get("left"):
                    each.follows += earlier
                    self._beginnings.setdefault(each.name, []).append(data["$bytes"])
                earlier.append(each)
        self._changes.clear()
        for lengths in self._beginnings.values():
            lengths[:] = sorted(set(lengths))
        for answers in self._waiting:
            _without_timeouts(answers.all)
            answers.left.extend(answers.all)
        self._calls = {each.number: each for found in self._waiting for each in found.all}
        self._calls = dict(sorted(self._calls.items()))

    def _texts_of_answers(self) -> Iterator[str]:
        for found in self._waiting:
            for each in found.all:
                yield _text(each.says())

    def _place(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return what a call is found by: of a session also by how often it has changed so far."""
        when = 0
        if "session" in signature(self._port, name).handles:
            when = self._changes[json.dumps(arguments["session"])]
        return _text([name, when, _compared(name, arguments)])

    def _passed(self, name: str, arguments: Mapping[str, Json]) -> None:
        """Take note of a call after which the session's answers may be others."""
        if signature(self._port, name).changes:
            self._changes[json.dumps(arguments["session"])] += 1

    def find(self, handle: Any) -> int | None:
        """Return the number of a handle; None for what is not one of this cassette."""
        ours = isinstance(handle, RecordedHandle) and handle.cassette == self._id
        return handle.number if ours else None

    def answer(self, name: str, given: Mapping[str, Any]) -> Any:
        """Answer a call.

        Raises:
            NotOnCassette: it was not recorded.
            AdapterError: what the call raised when it was recorded.
        """
        # Not masked: a mask on the cassette stands for any text, and errors are masked later.
        made = Arguments.of(self._port, name, given, self, str)
        if (kind := unrecordable(made.plain)) is not None:
            raise Unsupported(f"an argument is or holds a {kind}, which a cassette cannot compare")
        found = self._found(name, made)
        outcome = found.outcome
        if "raised" in outcome:
            raise error_of(outcome["raised"], value_of)
        if "streams" in outcome:
            return ReplayedStream(found, self._file)
        if "wrote" in outcome:
            self._files.put_back(outcome["wrote"], given["folder"])
        returned = outcome["returned"]
        if signature(self._port, name).returns_handle:
            return RecordedHandle(self._id, returned["$handle"])
        if isinstance(returned, dict) and "$files" in returned:
            return self._files.path_of(returned)
        return value_of(returned)

    def _found(self, name: str, made: Arguments) -> Interaction:
        asked = []
        for arguments in made.beginnings(self._beginnings.get(name, ())):
            asked.append(arguments)
            if (found := self._take(name, arguments)) is not None:
                return found
        *beginnings, whole = asked
        for arguments in beginnings:
            if (found := self._take(name, arguments, follows=False)) is not None:
                return found
        if name == "close_session" and "$handle" in whole["session"]:
            return _CLOSED  # a program that ends early closes early
        with self._lock:
            raise self._missing(name, whole)

    def _take(
        self, name: str, arguments: dict[str, Json], *, follows: bool = True
    ) -> Interaction | None:
        """Return the next answer to a question; None if there is none.

        Args:
            name: the callback.
            arguments: its arguments.
            follows: not before earlier calls that differ in their data alone.
        """
        with self._lock:
            found = self._chosen(name, self._waiting.find(self._place(name, arguments)))
            if found is None:
                return None
            left = found.kept.left
            if follows and not all(each.taken for each in left[0].follows):
                return None
            if self._ordered:
                self._check_order(left[0])
            self._waiting.settle(found)
            self._passed(name, arguments)
            self._asked[name] += 1
            # A future may be awaited again, from any thread, with the same result.
            each = left[0] if name == "await_" and len(left) == 1 else left.popleft()
            each.taken = True
            self._calls.pop(each.number, None)
            return each

    def _chosen(self, name: str, found: Sequence[Match[Answers]]) -> Match[Answers] | None:
        """Return which of the recorded questions is meant, of those that it may be.

        Raises:
            NotOnCassette: it matters, and is not known.
        """
        if len(found) > 1:
            said = [[each.says() for each in match.kept.all] for match in found]
            # What varies stays what it was taken for, and secrets do not.
            hidden = any(match.masked for match in found)
            answers = [answer for each in said for answer in each] if hidden else said
            if any(each != answers[0] for each in answers):
                raise ambiguous(
                    str(self._file),
                    name,
                    sorted(match.kept.all[0].number for match in found),
                    secrets=hidden,
                )
        return next((match for match in found if match.kept.left), None)

    def _check_order(self, found: Interaction) -> None:
        first = next(iter(self._calls.values()), found)
        if found.number > first.number:
            raise NotOnCassette(
                f"{self._file} has this call of {found.name} as call {found.number}, and call "
                f"{first.number}, {first.name}, comes before it; {NotOnCassette.ADVICE}, or set "
                "ordered = false"
            )

    def _missing(self, name: str, arguments: dict[str, Json]) -> NotOnCassette:
        left = [
            (each.number, _compared(name, each.arguments))
            for each in self._calls.values()
            if each.name == name
        ]
        given = _compared(name, arguments)
        return explained(
            str(self._file),
            name,
            given,
            left,
            self._asked[name],
            lambda one, other: one is other or self._same(one, other),
        )

    def _same(self, one: Json, other: Json) -> bool:
        try:
            recorded, given = _text(one), _text(other)
        except TypeError:  # nothing, on one side
            return False
        return self._waiting.same(recorded, given)

    def _callback(self, name: str) -> Any:
        spec = inspect.signature(PORTS[self._port].callbacks()[name]).parameters
        takes = [each for each in spec if each not in ("self", "opts")]

        def answer(*values: Any) -> Any:
            if name in _OF_BACKENDS:
                return _OF_BACKENDS[name]
            return self.answer(name, dict(zip(takes, values, strict=True)))

        kinds = [inspect.Parameter(each, inspect.Parameter.POSITIONAL_OR_KEYWORD) for each in takes]
        answer.__signature__ = inspect.Signature(kinds)  # type: ignore[attr-defined]
        answer.__name__ = name
        return hookimpl(answer)

    def _helper(self, name: str) -> Any:
        def ask(opts: Any, *args: Any, **kwargs: Any) -> Any:
            return self._objects.ask(ADAPTER, name, args, kwargs, self._plain)

        return helper(ask)

    def _plain(self, value: Any) -> Json:
        number = self.find(value)
        if number is not None:
            return {"$handle": number}
        return Plain(str, briefly=True)(value)


def _compared(name: str, arguments: Mapping[str, Json]) -> dict[str, Json]:
    """Return the arguments without those that are about time, which a replay does not take."""
    if name != "await_":
        return dict(arguments)
    return {each: value for each, value in arguments.items() if each != "timeout"}


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _can_be_replayed(each: Interaction) -> bool:
    """Say whether a question is known: not one with what JSON cannot hold, nor with a handle of
    another adapter, which only an error is the answer to whatever it is.
    """
    if unrecordable(each.arguments) is not None:
        return False
    foreign = any(isinstance(x, dict) and "$foreign" in x for x in each.arguments.values())
    return "raised" in each.outcome or not foreign


def _without_timeouts(calls: list[Interaction]) -> None:
    """Remove the answers of a future that say that it is not done, if another says that it is."""
    if kept := [each for each in calls if not _says_not_yet(each)]:
        calls[:] = kept


def _says_not_yet(each: Interaction) -> bool:
    raised = each.outcome.get("raised", {})
    waited = each.arguments.get("timeout") is not None
    return each.name == "await_" and waited and raised.get("class") == "AdapterTimeout"


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
        count = len(self._recorded.items)
        raise NotOnCassette(
            f"{self._file} has {count} items of this {self._recorded.name}, which was left there "
            f"when it was recorded; {NotOnCassette.ADVICE}"
        )
