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

from crucible_kitchen import PORTS, helper, hookimpl

from .arguments import Arguments
from .contract import signature
from .failures import error_of
from .files import Files
from .handles import RecordedHandle
from .lookup import Lookup
from .missing import NotOnCassette, explained
from .objects import ADAPTER, AnsweringObjects
from .tape import lines_of
from .values import Json, Plain, Unreadable, value_of

VARYING = (
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",  # a UUID
    r"(?<![0-9a-z])[0-9a-f]{32}(?![0-9a-z])",  # the same without dashes
    r"\d{8}-\d{6}-[0-9a-f]{6}",  # the id of a run that was given none
    r"(?:(?<=/)|(?<=%2F))[0-9a-f]{8}(?=/|%2F)",  # in the labels of a run's checkpoints
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


_CLOSED = Interaction(0, "close_session", {}, {"returned": None})


class Player:
    """An adapter that answers from a cassette. It has the callbacks that the recorded one had.

    Args:
        file: the cassette.
        port: the port's name.
        varying: regular expressions of further parts of texts that are not compared.

    Raises:
        ValueError: the cassette cannot be replayed.
    """

    def __init__(self, file: Path, port: str, varying: Sequence[str] = ()) -> None:
        header, *lines = lines_of(file, port)
        self.__name__ = f"recorded {header.get('adapter')}"
        self._file, self._port, self._id = file, port, str(header.get("id"))
        self._files = Files.of(file, 0)
        self._varying = re.compile("|".join(f"(?:{each})" for each in (*VARYING, *varying)))
        self._objects = AnsweringObjects(self._id, str(file))
        self._lock = threading.Lock()
        self._changes: dict[Json, int] = defaultdict(int)
        self._asked: dict[str, int] = defaultdict(int)
        self._waiting: Lookup[deque[Interaction]] = Lookup()
        try:
            self._load(lines)
        except (LookupError, TypeError, AttributeError) as error:
            raise Unreadable(f"{file} is damaged: a line lacks {error}") from None
        for name in header["callbacks"]:
            if name in PORTS[port].callbacks():
                setattr(self, name, self._callback(name))
        for name in self._objects.helpers:
            setattr(self, name, self._helper(name))

    def _load(self, lines: Sequence[Mapping[str, Any]]) -> None:
        calls: dict[int, Interaction] = {}
        for line in lines:
            if "call" not in line:
                self._objects.add(line)
            elif "item" in line:
                calls[line["call"]].items.append(line["item"])
            elif "ended" in line:
                calls[line["call"]].ended = line["ended"]
            else:
                number, name = line["call"], line["name"]
                calls[number] = Interaction(number, name, dict(line["arguments"]), line)
        for _, each in sorted(calls.items()):
            queue: deque[Interaction] = deque()
            self._waiting.add(self._place(each.name, each.arguments), queue).append(each)
            self._passed(each.name, each.arguments)
        self._changes.clear()
        for queue in self._waiting:
            _without_timeouts(queue)

    def _place(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return what a call is found by: of a session also by how often it has changed so far."""
        when = 0
        if "session" in signature(self._port, name).handles:
            when = self._changes[json.dumps(arguments["session"])]
        return self._text([name, when, _compared(name, arguments)])

    def _passed(self, name: str, arguments: Mapping[str, Json]) -> None:
        """Take note of a call after which the session's answers may be others."""
        if signature(self._port, name).changes:
            self._changes[json.dumps(arguments["session"])] += 1

    def _text(self, value: Json) -> str:
        return self._varying.sub("~", json.dumps(value, sort_keys=True, ensure_ascii=False))

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
        made.read_to_the_end()
        found = self._next(name, made.complete())
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

    def _next(self, name: str, arguments: dict[str, Json]) -> Interaction:
        with self._lock:
            queues = self._waiting.find(self._place(name, arguments))
            if (queue := next(filter(None, queues), None)) is None:
                if name == "close_session" and "$handle" in arguments["session"]:
                    return _CLOSED  # a program that ends early closes early
                raise self._missing(name, arguments)
            self._passed(name, arguments)
            self._asked[name] += 1
            # A future may be awaited again, from any thread, with the same result.
            return queue[0] if name == "await_" and len(queue) == 1 else queue.popleft()

    def _missing(self, name: str, arguments: dict[str, Json]) -> NotOnCassette:
        left = [
            (each.number, _compared(name, each.arguments))
            for queue in self._waiting
            for each in queue
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
            recorded, given = self._text(one), self._text(other)
        except TypeError:  # nothing, on one side
            return False
        lookup: Lookup[bool] = Lookup()
        lookup.add(recorded, True)
        return any(lookup.find(given))

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


def _without_timeouts(queue: deque[Interaction]) -> None:
    """Remove the answers of a future that say that it is not done, if another says that it is."""
    kept = [each for each in queue if not _says_not_yet(each)]
    if kept:
        queue.clear()
        queue.extend(kept)


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
