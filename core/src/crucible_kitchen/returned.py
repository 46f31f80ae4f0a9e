"""What a callback may return: the annotation of its spec, as a check.

At run time no type checker guards an adapter, and a wrong value would fail far from its origin, or
be trained on. So each port checks the values that adapters return. The check is built once, from
the annotation. A plain value costs less than 0.1 us; lists, which may have a million rows, are
checked column by column. Handles, such as sessions, futures and data sets, may be anything but
None, which is what a function returns that forgot its `return`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import (
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from .errors import AdapterError


def returned(function: Callable[..., Any]) -> Any:
    """Return the annotation of a function's result; `Any` if it has none."""
    # Not those of its arguments, whose names may not exist at run time in the function's module.
    alone = types.SimpleNamespace(
        __annotations__={"return": function.__annotations__.get("return", Any)}
    )
    return get_type_hints(alone, function.__globals__)["return"]


def items_of(annotation: Any) -> Any:
    """Return the annotation of the items of an iterable."""
    return (*get_args(annotation), Any)[0]


@functools.cache
def check_of(annotation: Any) -> Check:
    """Make the check of an annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return _Anything("Any")
    if isinstance(annotation, TypeVar):
        return _Handle(annotation)
    if origin in (Union, types.UnionType):
        return _AnyOf([*map(check_of, arguments)])
    if origin is Literal:
        return _OneOf(arguments)
    if origin is np.ndarray:
        return _Array(arguments)
    if origin in (dict, collections.abc.Mapping):
        return _Mapping(origin, *map(check_of, arguments))
    if origin in (list, collections.abc.Sequence):
        return _Sequence(origin, check_of(*arguments))
    if origin is collections.abc.Iterable:  # a stream, whose items are checked as they come
        return _Container(origin, check_of(*arguments))
    if dataclasses.is_dataclass(annotation):
        return _Fields(annotation)
    return _Plain(annotation)


class Wrong(NamedTuple):
    """A value that is not what it should be.

    Args:
        expected: what belongs there.
        found: the name of its type, never the value, which may be data or a secret.
        place: where it is in the result, such as `[3].loss`; empty for the whole result.
    """

    expected: str
    found: str
    place: str = ""

    def within(self, place: str) -> Wrong:
        """Return it as seen from the value that contains it."""
        return self._replace(place=place + self.place)


class Check:
    """What a value must be.

    Args:
        expected: its type, as an annotation.
        kinds: types whose instances are right.
    """

    def __init__(self, expected: str, *kinds: type) -> None:
        self.expected = expected
        self.kinds = kinds
        self.right = frozenset(kinds)
        """Types whose values are certainly right, so that nothing more needs to be checked."""

    def __call__(self, value: Any, verb: str = "return") -> None:
        """Check what an adapter returned.

        Raises:
            AdapterError: the value is of another type.
        """
        if type(value) in self.right or (wrong := self.wrong(value)) is None:
            return
        if wrong.place:
            found = f"; in it {wrong.place} is {wrong.found}, not {wrong.expected}"
        else:
            found = f", not {wrong.found}"
        raise AdapterError(f"must {verb} {self.expected}{found}")

    def wrong(self, value: Any) -> Wrong | None:
        """Return what is wrong with a value, or None."""
        raise NotImplementedError

    def fits(self, values: Sequence[Any]) -> bool:
        """Say whether all values are certainly right, at the speed of C; if False, check each."""
        return False

    def not_(self, value: Any) -> Wrong:
        """Return the mistake of a value that is of another type altogether."""
        return Wrong(self.expected, "None" if value is None else _a(type(value).__name__))


def _a(noun: str) -> str:
    return f"{'an' if noun[:1] in 'AEIOUaeiou' else 'a'} {noun}"


class _Anything(Check):
    def wrong(self, value: Any) -> Wrong | None:
        return None

    def fits(self, values: Sequence[Any]) -> bool:
        return True


class _Plain(Check):
    """An instance of a class; for a class of numbers, also NumPy's and, for floats, integers."""

    ALSO: ClassVar[Mapping[Any, tuple[type, ...]]] = {
        float: (float, int, np.floating, np.integer),
        int: (int, np.integer),
        bool: (bool, np.bool_),
    }

    def __init__(self, kind: Any) -> None:
        name = "None" if kind is type(None) else kind.__name__
        super().__init__(name, *self.ALSO.get(kind, (kind,)))

    def wrong(self, value: Any) -> Wrong | None:
        # By its type: the `__class__` of a mock is that of the object it stands for.
        return None if issubclass(type(value), self.kinds) else self.not_(value)

    def fits(self, values: Sequence[Any]) -> bool:
        return self.right.issuperset(map(type, values))


class _Handle(Check):
    """The adapter's own object for a session, a future or a data set."""

    def __init__(self, annotation: TypeVar) -> None:
        # SessionT, FutureRetT, DatasetArgT: the name says of what.
        name = annotation.__name__.removesuffix("T").removesuffix("Ret").removesuffix("Arg")
        super().__init__(f"the handle of a {name.lower()}")

    def wrong(self, value: Any) -> Wrong | None:
        return self.not_(value) if value is None else None


class _OneOf(Check):
    """One of several texts."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        super().__init__(" | ".join(map(repr, values)))
        self._values = frozenset(values)

    def wrong(self, value: Any) -> Wrong | None:
        if not issubclass(type(value), str):
            return self.not_(value)
        return None if value in self._values else Wrong(self.expected, "another text")

    def fits(self, values: Sequence[Any]) -> bool:
        return {str}.issuperset(map(type, values)) and self._values.issuperset(values)


class _AnyOf(Check):
    """A value of one type or another."""

    def __init__(self, checks: Sequence[Check]) -> None:
        super().__init__(" | ".join(check.expected for check in checks))
        self._checks = checks
        self.right = frozenset().union(*(check.right for check in checks))

    def wrong(self, value: Any) -> Wrong | None:
        nearest = none = self.not_(value)
        for check in self._checks:
            wrong = check.wrong(value)
            if wrong is None:
                return None
            if wrong.place:  # it is of this type, except for something in it
                nearest = wrong
            elif wrong.found != none.found and nearest is none:  # another kind of array, or text
                nearest = wrong._replace(expected=self.expected)
        return nearest

    def fits(self, values: Sequence[Any]) -> bool:
        rest = [value for value in values if type(value) not in self.right]
        return not rest or any(check.fits(rest) for check in self._checks if not check.right)


class _Array(Check):
    """A NumPy array, of one dtype if the annotation has one."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        kind = items_of(arguments[-1])
        self._dtype = None if kind is Any else np.dtype(kind)
        super().__init__("array" if self._dtype is None else f"{self._dtype} array")

    def wrong(self, value: Any) -> Wrong | None:
        if not issubclass(type(value), np.ndarray):
            return self.not_(value)
        if self._dtype is None or value.dtype == self._dtype:
            return None
        return Wrong(self.expected, _a(f"{value.dtype} array"))

    def fits(self, values: Sequence[Any]) -> bool:
        return {np.ndarray}.issuperset(map(type, values)) and (
            self._dtype is None or {self._dtype}.issuperset(map(attrgetter("dtype"), values))
        )


class _Container(Check):
    """A value with items, which are not checked."""

    TEXTS = (str, bytes, bytearray, memoryview)
    """Types that have items, but are never what such an annotation means."""

    def __init__(self, kind: type, *items: Check) -> None:
        super().__init__(f"{kind.__name__}[{', '.join(item.expected for item in items)}]", kind)
        self.right = frozenset()

    def wrong(self, value: Any) -> Wrong | None:
        kind = type(value)
        if issubclass(kind, self.kinds) and not issubclass(kind, self.TEXTS):
            return None
        return self.not_(value)


class _Sequence(_Container):
    """A list, or another sequence."""

    def __init__(self, kind: type, item: Check) -> None:
        super().__init__(kind, item)
        self._item = item

    def wrong(self, value: Any) -> Wrong | None:
        if (wrong := super().wrong(value)) or self._item.fits(value):
            return wrong
        for place, item in enumerate(value):
            if wrong := self._item.wrong(item):
                return wrong.within(f"[{place}]")
        return None

    def fits(self, values: Sequence[Any]) -> bool:
        return {list}.issuperset(map(type, values)) and self._item.fits(
            [*chain.from_iterable(values)]
        )


class _Mapping(_Container):
    """A dict, or another mapping."""

    LONGEST = 60
    """Characters of a key that a message repeats at most."""

    def __init__(self, kind: type, key: Check, item: Check) -> None:
        super().__init__(kind, key, item)
        self._key, self._item = key, item

    def wrong(self, value: Any) -> Wrong | None:
        if (wrong := super().wrong(value)) or self.fits([value]):
            return wrong
        for key, item in value.items():
            if wrong := self._key.wrong(key):
                return wrong.within(".keys()")
            if wrong := self._item.wrong(item):
                return wrong.within(f"[{str.__repr__(key)[: self.LONGEST]}]")
        return None

    def fits(self, values: Sequence[Any]) -> bool:
        return (
            {dict}.issuperset(map(type, values))
            and self._key.fits([*chain.from_iterable(values)])
            and (
                isinstance(self._item, _Anything)
                or self._item.fits([*chain.from_iterable(map(dict.values, values))])
            )
        )


class _Fields(_Plain):
    """One of our dataclasses, whose own `__init__` does not check types."""

    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self.right = frozenset()
        self._kind = kind
        hints = get_type_hints(kind)
        self._fields = [
            (field.name, attrgetter(field.name), check_of(hints[field.name]))
            for field in dataclasses.fields(kind)
        ]

    def wrong(self, value: Any) -> Wrong | None:
        if wrong := super().wrong(value):
            return wrong
        for name, get, check in self._fields:
            each = get(value)
            if type(each) not in check.right and (wrong := check.wrong(each)):
                return wrong.within(f".{name}")
        return None

    def fits(self, values: Sequence[Any]) -> bool:
        return {self._kind}.issuperset(map(type, values)) and all(
            check.fits([*map(get, values)]) for _, get, check in self._fields
        )
