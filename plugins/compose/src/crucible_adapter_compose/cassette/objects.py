"""What helpers return, such as tokenizers: objects whose answers are on the cassette.

A recording returns a stand-in for such an object, which notes what is asked of it; a replay
returns one that answers from these notes. The same question has the same answer, however often and
from whichever thread it is asked, so each is kept once.
"""

from __future__ import annotations

import functools
import inspect
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .failures import exception_of, plain_exception
from .handles import Numbers, plain_handle
from .lookup import Lookup
from .missing import NotOnCassette
from .tape import Tape
from .values import Json, Plain, value_of

ADAPTER = 0
"""The number of the adapter itself, whose attributes are its helpers."""
_LARGE = frozenset({"backend_tokenizer"})
"""Attributes that stand-ins lack: megabytes, of which workflows only want a digest."""


def _asked(args: tuple[Any, ...], kwargs: Mapping[str, Any], plain: Callable[[Any], Json]) -> Json:
    """Return the arguments of a question as JSON."""
    return [*map(plain, args), *([{"$named": plain(dict(kwargs))}] if kwargs else [])]


def _key(number: int, name: str, arguments: Json) -> str:
    return json.dumps([number, name, arguments], sort_keys=True)


@dataclass(slots=True)
class AskedObjects:
    """Notes what is asked of objects.

    Args:
        tape: where to.
        handles: the numbers of handles, which helpers take.
        masked: returns a text without any secret, for questions.
        known: returns a text without the known secrets, for answers.
    """

    tape: Tape
    handles: Numbers
    masked: Callable[[str], str]
    known: Callable[[str], str]
    _numbers: Numbers = field(default_factory=Numbers)
    _noted: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def helper(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a helper whose answers are noted."""
        self._note(f"helper {name}", {"helper": name})
        return functools.partial(self.ask, ADAPTER, name, function)

    def ask(
        self, number: int, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Ask an object something, and note the answer."""
        arguments = _asked(args, kwargs, self._plain)
        line = {"object": number, "name": name, "arguments": arguments}
        key = _key(number, name, arguments)
        try:
            answer = function(*args, **kwargs)
        except Exception as error:
            self._note(key, {**line, "raised": plain_exception(error, Plain(self.masked))})
            raise
        plain, given = self._answer(answer)
        self._note(key, {**line, "returned": plain})
        return given

    def look(self, number: int, name: str, thing: Any) -> Any:
        """Look at an attribute of an object, and note it."""
        line: dict[str, Any] = {"object": number, "name": name}
        key = f"{number}.{name}"
        try:
            value = getattr(thing, name)
        except AttributeError:
            self._note(key, {**line, "lacks": True})
            raise
        # A tokenizer can be called, too, and is an object all the same.
        if inspect.isroutine(value) or isinstance(value, functools.partial):
            self._note(key, {**line, "method": True})
            return functools.partial(self.ask, number, name, value)
        plain, given = self._answer(value)
        self._note(key, {**line, "is": plain})
        return given

    def _answer(self, answer: Any) -> tuple[Json, Any]:
        plain = Plain(self.known)(answer)
        if not (isinstance(plain, dict) and "$unrecordable" in plain):
            return plain, answer
        number = self._numbers.of(answer)
        return {"$object": number}, _stand_in(self.tape.id)(self, number, answer)

    def _plain(self, value: Any) -> Json:
        number = None if value is None or isinstance(value, str | int) else self.handles.find(value)
        return plain_handle(number, value) if number else Plain(self.masked, briefly=True)(value)

    def _note(self, key: str, line: Mapping[str, Any]) -> None:
        with self._lock:
            if key in self._noted:
                return
            self._noted.add(key)
        self.tape.write(line)


class AskedObject:
    """Stands for an object while it is recorded."""

    def __init__(self, objects: AskedObjects, number: int, thing: Any) -> None:
        self._objects, self._number, self._thing = objects, number, thing

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in _LARGE:
            raise AttributeError(name)
        return self._objects.look(self._number, name, self._thing)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._objects.ask(self._number, "__call__", self._thing, *args, **kwargs)


@functools.lru_cache(maxsize=16)
def _stand_in(recording: str, base: type[Any] = AskedObject) -> type[Any]:
    """Return a class of this recording alone.

    Rows that were rendered are kept by a digest of their tokenizer, the name of its class included.
    A recording must not find those of another one, or the cassette would lack the tokenizer's
    answers; a replay may.
    """
    return type(f"RecordedObject_{recording}", (base,), {"__module__": __name__})


class AnsweringObjects:
    """Answers what is asked of objects from what was noted.

    Args:
        cassette: the id of the recording.
        file: where it is, for messages.
    """

    def __init__(self, cassette: str, file: str) -> None:
        self._cassette, self._file = cassette, file
        self._answers: Lookup[Mapping[str, Any]] = Lookup()
        self.helpers: set[str] = set()

    def add(self, line: Mapping[str, Any]) -> None:
        """Take note of a line of the cassette."""
        if "helper" in line:
            self.helpers.add(str(line["helper"]))
        elif "arguments" in line:
            self._answers.add(_key(line["object"], line["name"], line["arguments"]), line)
        else:
            self._answers.add(f"{line['object']}.{line['name']}", line)

    def ask(
        self, number: int, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], plain: Any
    ) -> Any:
        """Return what an object answered, or raise what it raised."""
        arguments = _asked(args, kwargs, plain)
        found = next(self._answers.find(_key(number, name, arguments)), None)
        if found is None:
            shown = json.dumps(arguments, ensure_ascii=False)
            raise NotOnCassette(
                f"{self._file} has no answer of {name} to {shown[:200]}"
                f"{'...' if len(shown) > 200 else ''}; {NotOnCassette.ADVICE}"
            )
        if "raised" in found:
            raise exception_of(found["raised"], value_of)
        return self._given(found["returned"], plain)

    def look(self, number: int, name: str, plain: Any) -> Any:
        """Return an attribute of an object."""
        found = next(self._answers.find(f"{number}.{name}"), None)
        if found is None:
            raise NotOnCassette(
                f"{self._file} does not say whether what a helper returned has {name!r}; "
                f"{NotOnCassette.ADVICE}"
            )
        if "lacks" in found:
            raise AttributeError(name)
        if "method" in found:
            return lambda *args, **kwargs: self.ask(number, name, args, kwargs, plain)
        return self._given(found["is"], plain)

    def _given(self, answer: Json, plain: Any) -> Any:
        if isinstance(answer, dict) and "$object" in answer:
            kind = _stand_in(self._cassette, AnsweringObject)
            return kind(self, answer["$object"], plain)
        return value_of(answer)


class AnsweringObject:
    """Stands for an object that was recorded."""

    def __init__(self, objects: AnsweringObjects, number: int, plain: Any) -> None:
        self._objects, self._number, self._plain = objects, number, plain

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in _LARGE:
            raise AttributeError(name)
        return self._objects.look(self._number, name, self._plain)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._objects.ask(self._number, "__call__", args, kwargs, self._plain)
