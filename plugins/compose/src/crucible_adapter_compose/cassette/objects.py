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
from typing import Any, NoReturn, TypeAlias

from crucible_kitchen import CrucibleWarning, Unsupported

from .failures import plain_exception
from .handles import Numbers, plain_handle
from .masks import Masking
from .tape import Tape
from .values import Json, Plain, unrecordable

ADAPTER = 0
"""The number of the adapter itself, whose attributes are its helpers."""
LARGE = frozenset({"backend_tokenizer"})
"""Attributes that stand-ins lack: megabytes, of which workflows only want a digest."""
_BATCHED = frozenset({"encode_batch"})
"""Methods that stand-ins lack while they are recorded, so that each text is a question of its own:
a replay answers it in any batch, as for a command that shows the first two rows."""
_QUESTION = ("object", "name", "arguments", "literal")

_text = json.JSONEncoder(sort_keys=True).encode

Key: TypeAlias = tuple[str, str]
"""What is asked of which object, and the arguments in JSON: none of an attribute."""


def asked(args: tuple[Any, ...], kwargs: Mapping[str, Any], plain: Callable[[Any], Json]) -> Json:
    """Return the arguments of a question as JSON."""
    return [*map(plain, args), *([{"$named": plain(dict(kwargs))}] if kwargs else [])]


def key_of(line: Mapping[str, Any]) -> Key:
    """Return what a line of the cassette is found by."""
    if "arguments" in line:
        return key_for(line["object"], line["name"], line["arguments"])
    return f"{line['object']}.{line['name']}", ""


def key_for(number: int, name: str, arguments: Json) -> Key:
    """Return what the answer of an object is found by."""
    return f"{number}.{name}", _text(arguments)


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
    _noted: dict[Key, str | None] = field(default_factory=dict)
    """The lines that were written, by question; None where a later answer differed."""
    _returned: dict[Key, int] = field(default_factory=dict)
    """Numbers of objects by the question that they were the answer to."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def helper(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a helper whose answers are noted."""
        self._note((f"helper {name}", ""), {"helper": name})
        return functools.partial(self.ask, ADAPTER, name, function)

    def ask(
        self, number: int, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Ask an object something, and note the answer."""
        masking = Masking(self.masked)
        arguments = asked(args, kwargs, functools.partial(self._plain, masking))
        if masking.hidden:  # then long texts are not digests
            arguments = asked(args, kwargs, functools.partial(self._plain, masking, texts=True))
        if (kind := unrecordable(arguments)) is not None:
            warnings.warn(
                f"the answer of {name} cannot be replayed: an argument is or holds "
                f"{kind}, which a cassette cannot compare",
                CrucibleWarning,
                stacklevel=2,
            )
            return function(*args, **kwargs)
        line = {"object": number, "name": name, "arguments": arguments, **masking.about()}
        key = key_of(line)
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
        key = key_of(line)
        try:
            if name in _BATCHED:
                raise AttributeError(name)
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

    def _answer(self, key: Key, answer: Any) -> tuple[Json, Any]:
        plain = Plain(self.known)(answer)
        if not (isinstance(plain, dict) and "$unrecordable" in plain):
            return plain, answer
        with self._lock:
            number = self._numbers.of(answer, like=self._returned.get(key))
            self._returned.setdefault(key, number)
        return {"$object": number}, stand_in(self.tape.id)(self, number, answer)

    def _plain(self, masking: Masking, value: Any, texts: bool = False) -> Json:
        number = None if value is None or isinstance(value, str | int) else self.handles.find(value)
        plain = Plain(masking, briefly=True, texts=texts)
        return plain_handle(number, value) if number else plain(value)

    def _note(self, key: Key, line: Mapping[str, Any]) -> None:
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


def cannot_set(name: str) -> NoReturn:
    """Refuse to change an object."""
    raise Unsupported(
        f"what a helper returned cannot be changed on a cassette, and {name} was to be set; have "
        "the adapter return it as it should be"
    )


class AskedObject:
    """Stands for an object while it is recorded."""

    def __init__(self, objects: AskedObjects, number: int, thing: Any) -> None:
        vars(self).update(_objects=objects, _number=number, _thing=thing)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in LARGE:
            raise AttributeError(name)
        return self._objects.look(self._number, name, self._thing)

    def __setattr__(self, name: str, value: Any) -> None:
        cannot_set(name)

    def __delattr__(self, name: str) -> None:
        cannot_set(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._objects.ask(self._number, "__call__", self._thing, *args, **kwargs)


@functools.lru_cache(maxsize=16)
def stand_in(recording: str, base: type[Any] = AskedObject) -> type[Any]:
    """Return a class of this recording alone.

    Rows that were rendered are kept by a digest of their tokenizer, the name of its class included.
    A recording must not find those of another one, or the cassette would lack the tokenizer's
    answers; a replay may.
    """
    return type(f"RecordedObject_{recording}", (base,), {"__module__": __name__})
