"""Finds the recorded call that answers a question."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .arguments import Arguments
from .contract import signature
from .interactions import Interaction
from .lookup import Lookup, Match
from .masks import has_masks
from .missing import NotOnCassette, ambiguous, explained
from .values import Json
from .varying import Varying


@dataclass(slots=True)
class Answers:
    """All answers to one question, and those that were not given yet, in their order."""

    all: list[Interaction] = field(default_factory=list)
    left: deque[Interaction] = field(default_factory=deque)


_text = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
_CLOSED = Interaction(0, "close_session", {}, {"returned": None})


class Questions:
    """The calls of a cassette, each found by its callback and its arguments. Safe to use from any
    thread.

    Args:
        file: the cassette, for messages.
        port: the port's name.
        calls: all calls, in their order.
        varying: regular expressions of further parts of texts that are not compared.
        ordered: whether calls must come in the order in which they were recorded.
    """

    def __init__(
        self,
        file: str,
        port: str,
        calls: Sequence[Interaction],
        varying: Sequence[str],
        ordered: bool,
    ) -> None:
        self._file, self._port, self._ordered = file, port, ordered
        self._lock = threading.Lock()
        self._changes: dict[Json, int] = defaultdict(int)
        self._asked: dict[str, int] = defaultdict(int)
        self._answers: Lookup[Answers] = Lookup(Varying(varying), self._texts_of_answers)
        self._beginnings: dict[str, list[int]] = {}
        """Bytes after which data in pieces was left unread, by callback, in ascending order."""
        self._queue(calls)
        known = {each.number: each for found in self._answers for each in found.all}
        self._calls = {number: known[number] for number in sorted(known)}
        """Those that were not asked for yet, in their order."""

    def _queue(self, calls: Sequence[Interaction]) -> None:
        rests: dict[str, list[Interaction]] = defaultdict(list)
        for each in calls:
            when, text = self._place(each.name, each.arguments)
            self._passed(each.name, each.arguments)
            if not _can_be_replayed(each, text):
                continue
            secrets, masked = each.outcome.get("secrets", 0), has_masks(each.outcome, text)
            answers = self._answers.add(when, text, Answers(), secrets, masked)
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
        for answers in self._answers:
            _without_timeouts(answers.all)
            answers.left.extend(answers.all)

    def _texts_of_answers(self) -> Iterator[str]:
        for found in self._answers:
            for each in found.all:
                yield _text(each.says())

    def _place(self, name: str, arguments: Mapping[str, Json]) -> tuple[str, str]:
        """Return what a call is found by: its name, of a session also how often it has changed so
        far, and its arguments.
        """
        when = 0
        if "session" in signature(self._port, name).handles:
            when = self._changes[json.dumps(arguments["session"])]
        return f"{name} {when}", _text(_compared(name, arguments))

    def _passed(self, name: str, arguments: Mapping[str, Json]) -> None:
        """Take note of a call after which the session's answers may be others."""
        if signature(self._port, name).changes:
            self._changes[json.dumps(arguments["session"])] += 1

    def answer(self, name: str, made: Arguments) -> Interaction:
        """Return the call that answers a question.

        Raises:
            NotOnCassette: none does, or it is not known which.
        """
        arguments: dict[str, Json] = {}
        for arguments in made.beginnings(self._beginnings.get(name, ())):
            if (found := self._take(name, arguments)) is not None:
                return found
        if name == "close_session" and "$handle" in arguments["session"]:
            return _CLOSED  # a program that ends early closes early
        with self._lock:
            raise self._missing(name, arguments)

    def recorded(self, text: str) -> str:
        """Return a text in which what varies is as it was recorded, where that is known by now."""
        with self._lock:
            return str(json.loads(self._answers.recorded(_text(text))))

    def _take(self, name: str, arguments: dict[str, Json]) -> Interaction | None:
        """Return the next answer to a question; None if there is none."""
        with self._lock:
            found = self._chosen(name, self._answers.find(*self._place(name, arguments)))
            if found is None:
                return None
            left = found.kept.left
            if not all(each.taken for each in left[0].follows):
                return None
            if self._ordered:
                self._check_order(left[0])
            self._answers.settle(found)
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
                    self._file,
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
            self._file,
            name,
            given,
            left,
            self._asked[name],
            self._same,
        )

    def _same(self, number: int, one: Json, other: Json) -> bool:
        if one is other:
            return True
        try:
            recorded, given = _text(one), _text(other)
        except TypeError:  # nothing, on one side
            return False
        masked = has_masks(self._calls[number].outcome, recorded)
        return self._answers.same(recorded, given, masked)


def _compared(name: str, arguments: Mapping[str, Json]) -> dict[str, Json]:
    """Return the arguments without those that are about time, which a replay does not take."""
    if name != "await_":
        return dict(arguments)
    return {each: value for each, value in arguments.items() if each != "timeout"}


def _can_be_replayed(each: Interaction, text: str) -> bool:
    """Say whether a question is known: not one with what JSON cannot hold, nor with a handle of
    another adapter, which only an error is the answer to whatever it is.
    """
    if '"$unrecordable": ' in text:  # a quote within a text has a backslash before it
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
