"""Errors without secrets: in everything a traceback prints of them, and in all they carry."""

from __future__ import annotations

import operator
import traceback
import types
from typing import Any

from ..errors import CrucibleError
from ..messages.printable import repr_of, text_of
from .data import shown
from .secrets import Secrets

LONGEST = 100
"""Most errors of a chain of causes that are masked."""


def mask_error(error: BaseException, secrets: Secrets) -> None:
    """Mask every secret in an error of ours, in place, and in the errors that led to it.

    Args:
        error: its text, its notes and all its attributes are masked.
        secrets: the known ones.
    """
    # Read once: some classes of other libraries make new ones at each access.
    arguments, attributes = error.args, dict(vars(error))
    carried = {
        id(value): shown(value, known=secrets.masked)
        for value in (*arguments, *attributes.values())
    }
    error.args = tuple(carried[id(each)] for each in arguments)
    for name, value in attributes.items():
        setattr(error, name, carried[id(value)])
    _clean_causes(error, secrets, {id(error)})


def _clean_causes(error: BaseException, secrets: Secrets, seen: set[int]) -> None:
    for name in ("__context__", "__cause__"):  # setting a cause suppresses the context
        suppressed = error.__suppress_context__
        if (found := getattr(error, name)) is not None:
            setattr(error, name, without_secrets(found, secrets, seen))
        error.__suppress_context__ = suppressed


def without_secrets(
    error: BaseException, secrets: Secrets, seen: set[int] | None = None
) -> BaseException:
    """Return an error of another library without secrets: itself, if a traceback shows none.

    Otherwise its arguments are masked in place. If its text is not made of them, a stand-in is
    returned, of a class of the same name that is derived from its own.

    Args:
        error: the error; its causes are masked, too.
        secrets: the known ones.
        seen: the ids of errors that are masked already, in a chain of causes.
    """
    seen = set() if seen is None else seen
    if id(error) in seen or len(seen) > LONGEST:
        return error
    seen.add(id(error))
    if isinstance(error, CrucibleError):
        mask_error(error, secrets)
    elif isinstance(error, BaseExceptionGroup):
        error = _masked_group(error, secrets, seen)
    elif _shows(error, secrets):
        error = _masked_error(error, secrets)
    seen.add(id(error))
    _clean_causes(error, secrets, seen)
    return error


def _printed(error: BaseException) -> str:
    """Return what a traceback prints of one error: its class, its text and its notes."""
    printed = traceback.TracebackException(type(error), error, None, compact=True)
    return "".join(printed.format_exception_only())


def _shows(error: BaseException, secrets: Secrets) -> bool:
    try:
        text = f"{_printed(error)}{error.args!r}{repr_of(error)}"
        if isinstance(error, SystemExit):
            text += repr(error.code)
    except Exception:  # in a method of its class; a traceback cannot print it either
        return False
    return secrets.masked(text) != text


def _masked_error(error: BaseException, secrets: Secrets) -> BaseException:
    try:
        error.args = tuple(shown(each, known=secrets.masked) for each in error.args)
        for name in (*vars(error), *_members(type(error))):
            value = getattr(error, name, None)
            if isinstance(value, str | bytes | list | tuple | dict):
                setattr(error, name, shown(value, known=secrets.masked))
    except Exception:  # it cannot be changed
        pass
    return _stand_in(error, secrets) if _shows(error, secrets) else error


def _members(kind: type[BaseException]) -> list[str]:
    """Return the attributes of an error outside its `__dict__`: `filename`, `code`, slots."""
    return [
        name
        for each in kind.__mro__[: kind.__mro__.index(BaseException)]
        for name, value in vars(each).items()
        if isinstance(value, types.MemberDescriptorType)
        or (isinstance(value, types.GetSetDescriptorType) and not name.startswith("__"))
    ]


def _stand_in(error: BaseException, secrets: Secrets) -> BaseException:
    kind = type(error)
    text = secrets.masked(str(error))
    looks = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__init__": lambda self, *args: None,
        "__setattr__": Exception.__setattr__,
        "__str__": lambda self: text,
        "__repr__": lambda self: f"{kind.__name__}({text!r})",
    }
    try:
        derived: Any = type(kind.__name__, (kind,), looks)
        made: BaseException = derived.__new__(derived, text)
        if _shows(made, secrets):
            raise TypeError
    except Exception:  # a class that cannot be derived from or instantiated
        made = type(kind.__name__, (Exception,), looks)(text)
    _mask_notes(made, error, secrets)
    return _taking_over(made, error)


def _masked_group(
    group: BaseExceptionGroup[Any], secrets: Secrets, seen: set[int]
) -> BaseException:
    inside = [without_secrets(each, secrets, seen) for each in group.exceptions]
    message = secrets.masked(group.message)
    if message == group.message and all(map(operator.is_, inside, group.exceptions)):
        made: BaseException = group
    else:
        made = _taking_over(BaseExceptionGroup(message, inside), group)
    _mask_notes(made, group, secrets)
    return made


def _mask_notes(made: BaseException, error: BaseException, secrets: Secrets) -> None:
    notes = getattr(error, "__notes__", ())
    if isinstance(notes, list) and notes:
        made.__notes__ = [secrets.masked(text_of(each)) for each in notes]


def _taking_over(made: BaseException, error: BaseException) -> BaseException:
    made.__traceback__ = error.__traceback__
    made.__cause__, made.__context__ = error.__cause__, error.__context__
    made.__suppress_context__ = error.__suppress_context__
    return made
