"""What helpers return, such as tokenizers: objects whose answers are on the cassette.

A recording returns a stand-in for such an object, which notes what is asked of it; a replay
returns one that answers from these notes. The same question has the same answer, however often and
from whichever thread it is asked, so each is kept once; where an answer was another one, that is
noted, and there is none in a replay.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from crucible_kitchen import CrucibleWarning, Unsupported

from .failures import exception_of, plain_exception
from .handles import Numbers, plain_handle
from .lookup import Lookup
from .missing import NotOnCassette
from .tape import Tape
from .values import Json, Plain, unrecordable, value_of

ADAPTER = 0
"""The number of the adapter itself, whose attributes are its helpers."""
_LARGE = frozenset({"backend_tokenizer"})
"""Attributes that stand-ins lack: megabytes, of which workflows only want a digest."""
_QUESTION = ("object", "name", "arguments")
_ANSWERS = frozenset({"returned", "raised"})
"""One of which a line with an answer of a method has."""
_SEEN = frozenset({"is", "method", "lacks"})
"""The same of an attribute."""


def _asked(args: tuple[Any, ...], kwargs: Mapping[str, Any], plain: Callable[[Any], Json]) -> Json:
    """Return the arguments of a question as JSON."""
    return [*map(plain, args), *([{"$named": plain(dict(kwargs))}] if kwargs else [])]


def _key_of(line: Mapping[str, Any]) -> str:
    if "arguments" in line:
        return _key(line["object"], line["name"], line["arguments"])
    return f"{line['object']}.{line['name']}"


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
    _noted: dict[str, str | None] = field(default_factory=dict)
    """The lines that were written, by question; None where a later answer differed."""
    _returned: dict[str, int] = field(default_factory=dict)
    """Numbers of objects by the question that they were the answer to."""
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
        if (kind := unrecordable(arguments)) is not None:
            warnings.warn(
                f"the answer of {name} cannot be replayed: an argument is or holds a {kind}, which "
                "a cassette cannot compare",
                CrucibleWarning,
                stacklevel=2,
            )
            return function(*args, **kwargs)
        line = {"object": number, "name": name, "arguments": arguments}
        key = _key_of(line)
        try:
            answer = function(*args, **kwargs)
        except Exception as error:
            self._note(key, {**line, "raised": plain_exception(error, Plain(self.masked))})
            raise
        plain, given = self._answer(key, answer)
        self._note(key, {**line, "returned": plain})
        return given

    def look(self, number: int, name: str, thing: Any) -> Any:
        """Look at an attribute of an object, and note it."""
        line: dict[str, Any] = {"object": number, "name": name}
        key = _key_of(line)
        try:
            value = getattr(thing, name)
        except AttributeError:
            self._note(key, {**line, "lacks": True})
            raise
        # A tokenizer can be called, too, and is an object all the same.
        if inspect.isroutine(value) or isinstance(value, functools.partial):
            self._note(key, {**line, "method": True})
            return functools.partial(self.ask, number, name, value)
        plain, given = self._answer(key, value)
        self._note(key, {**line, "is": plain})
        return given

    def _answer(self, key: str, answer: Any) -> tuple[Json, Any]:
        plain = Plain(self.known)(answer)
        if not (isinstance(plain, dict) and "$unrecordable" in plain):
            return plain, answer
        with self._lock:
            number = self._numbers.of(answer, like=self._returned.get(key))
            self._returned.setdefault(key, number)
        return {"$object": number}, _stand_in(self.tape.id)(self, number, answer)

    def _plain(self, value: Any) -> Json:
        number = None if value is None or isinstance(value, str | int) else self.handles.find(value)
        return plain_handle(number, value) if number else Plain(self.masked, briefly=True)(value)

    def _note(self, key: str, line: Mapping[str, Any]) -> None:
        said = hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
        with self._lock:
            if key not in self._noted:
                self._noted[key] = said
            elif self._noted[key] in (said, None):
                return
            else:
                self._noted[key] = None
                line = {name: line[name] for name in _QUESTION if name in line} | {"differs": True}
            self.tape.write(line)


def _cannot_set(name: str) -> NoReturn:
    raise Unsupported(
        f"what a helper returned cannot be changed on a cassette, and {name} was to be set; have "
        "the adapter return it as it should be"
    )


class AskedObject:
    """Stands for an object while it is recorded."""

    def __init__(self, objects: AskedObjects, number: int, thing: Any) -> None:
        vars(self).update(_objects=objects, _number=number, _thing=thing)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in _LARGE:
            raise AttributeError(name)
        return self._objects.look(self._number, name, self._thing)

    def __setattr__(self, name: str, value: Any) -> None:
        _cannot_set(name)

    def __delattr__(self, name: str) -> None:
        _cannot_set(name)

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
        self._differ: set[str] = set()
        self.helpers: set[str] = set()

    def add(self, line: Mapping[str, Any]) -> None:
        """Take note of a line of the cassette.

        Raises:
            KeyError: it lacks something.
        """
        if "helper" in line:
            self.helpers.add(str(line["helper"]))
            return
        key = _key_of(line)
        answers = _ANSWERS if "arguments" in line else _SEEN
        if "differs" in line:
            self._differ.add(key)
        elif answers.isdisjoint(line):
            raise KeyError(" or ".join(sorted(answers)))
        if "raised" in line:
            exception_of(line["raised"], value_of)
        self._answers.add(key, line)

    def ask(
        self, number: int, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], plain: Any
    ) -> Any:
        """Return what an object answered, or raise what it raised."""
        arguments = _asked(args, kwargs, plain)
        if (kind := unrecordable(arguments)) is not None:
            raise Unsupported(
                f"an argument of {name} is or holds a {kind}, which a cassette cannot compare"
            )
        found = self._found(_key(number, name, arguments), name)
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
        found = self._found(f"{number}.{name}", name)
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

    def _found(self, key: str, name: str) -> Mapping[str, Any] | None:
        found = [match.kept for match in self._answers.find(key)]
        answers = [{k: v for k, v in line.items() if k != "arguments"} for line in found]
        if any(each != answers[0] for each in answers):
            raise NotOnCassette(
                f"{self._file} has several answers of {name} to questions that differ in their "
                "secrets alone, which are not on it"
            )
        if any(_key_of(line) in self._differ for line in found):
            raise NotOnCassette(
                f"{self._file} has no answer of {name} to this: it was not the same each time that "
                "this was asked, or asked with another secret"
            )
        return found[0] if found else None

    def _given(self, answer: Json, plain: Any) -> Any:
        if isinstance(answer, dict) and "$object" in answer:
            kind = _stand_in(self._cassette, AnsweringObject)
            return kind(self, answer["$object"], plain)
        return value_of(answer)


class AnsweringObject:
    """Stands for an object that was recorded."""

    def __init__(self, objects: AnsweringObjects, number: int, plain: Any) -> None:
        vars(self).update(_objects=objects, _number=number, _plain=plain)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in _LARGE:
            raise AttributeError(name)
        return self._objects.look(self._number, name, self._plain)

    def __setattr__(self, name: str, value: Any) -> None:
        _cannot_set(name)

    def __delattr__(self, name: str) -> None:
        _cannot_set(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._objects.ask(self._number, "__call__", args, kwargs, self._plain)
