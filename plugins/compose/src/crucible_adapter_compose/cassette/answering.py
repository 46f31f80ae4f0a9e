"""What helpers return in a replay: objects that answer from what was noted of the recorded ones."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from typing import Any

from crucible_kitchen import Unsupported

from .failures import exception_of
from .lookup import Lookup
from .masks import has_masks
from .missing import NotOnCassette
from .objects import LARGE, Key, asked, cannot_set, key_for, key_of, stand_in
from .values import Json, unrecordable, value_of

_ANSWERS = frozenset({"returned", "raised"})
"""One of which a line with an answer of a method has."""
_SEEN = frozenset({"is", "method", "lacks"})
"""The same of an attribute."""


class AnsweringObjects:
    """Answers what is asked of objects from what was noted.

    Args:
        cassette: the id of the recording.
        file: where it is, for messages.
    """

    def __init__(self, cassette: str, file: str) -> None:
        self._cassette, self._file = cassette, file
        self._answers: dict[Key, Mapping[str, Any]] = {}
        self._masked: Lookup[Key] = Lookup()
        """The questions that hold a mask, which others may stand for."""
        self._differ: set[Key] = set()
        self.helpers: set[str] = set()

    def add(self, line: Mapping[str, Any]) -> None:
        """Take note of a line of the cassette.

        Raises:
            KeyError: it lacks something.
        """
        if "helper" in line:
            self.helpers.add(str(line["helper"]))
            return
        key = key_of(line)
        answers = _ANSWERS if "arguments" in line else _SEEN
        if "differs" not in line and answers.isdisjoint(line):
            raise KeyError(" or ".join(sorted(answers)))
        if "raised" in line:
            exception_of(line["raised"], value_of)
        if "differs" in line:
            self._differ.add(key)
        # Without the arguments: thousands of lists would be looked through for garbage.
        answer = {name: line[name] for name in (*_ANSWERS, *_SEEN) if name in line}
        self._answers.setdefault(key, answer)
        if has_masks(line, key[1]):
            self._masked.add(*key, key, masked=True)

    def ask(
        self, number: int, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], plain: Any
    ) -> Any:
        """Return what an object answered, or raise what it raised."""
        arguments = asked(args, kwargs, plain)
        found = self._found(*key_for(number, name, arguments))
        if found is None and (kind := unrecordable(arguments)) is not None:  # no line has any
            raise Unsupported(
                f"an argument of {name} is or holds {kind}, which a cassette cannot compare"
            )
        if found is None:  # where something was masked, long texts are written
            whole = asked(args, kwargs, functools.partial(plain, texts=True))
            found = self._found(*key_for(number, name, whole))
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
        found = self._found(f"{number}.{name}")
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

    def _found(self, name: str, arguments: str = "") -> Mapping[str, Any] | None:
        key = name, arguments
        keys = [key] if key in self._answers else [m.kept for m in self._masked.find(*key)]
        found = [self._answers[each] for each in keys]
        if any(each != found[0] for each in found):
            raise NotOnCassette(
                f"{self._file} has several answers of {_method(name)} to questions that differ in "
                "their secrets alone, which are not on it"
            )
        if not self._differ.isdisjoint(keys):
            raise NotOnCassette(
                f"{self._file} has no answer of {_method(name)} to this: it was not the same each "
                "time that this was asked, or asked with another secret"
            )
        return found[0] if found else None

    def _given(self, answer: Json, plain: Any) -> Any:
        if isinstance(answer, dict) and "$object" in answer:
            kind = stand_in(self._cassette, AnsweringObject)
            return kind(self, answer["$object"], plain)
        return value_of(answer)


def _method(name: str) -> str:
    return name.partition(".")[2]


class AnsweringObject:
    """Stands for an object that was recorded."""

    def __init__(self, objects: AnsweringObjects, number: int, plain: Any) -> None:
        vars(self).update(_objects=objects, _number=number, _plain=plain)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in LARGE:
            raise AttributeError(name)
        found = self._objects.look(self._number, name, self._plain)
        if inspect.isfunction(found):  # a method: a tokenizer is asked thousands of times
            vars(self)[name] = found
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        cannot_set(name)

    def __delattr__(self, name: str) -> None:
        cannot_set(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._objects.ask(self._number, "__call__", args, kwargs, self._plain)
