"""Values as plain JSON, and values again.

What JSON has is written as it is. All else is a table with one key that says what it is, such as
`{"$array": {...}}`; such a key in a table of a user's is written as `{"$dict": [[key, value]]}`.
Nothing that is read back can run code: a type is one of those below, or it is refused.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    Completion,
    CompletionChunk,
    Datum,
    EncodedTextChunk,
    ForwardBackwardResult,
    ImageChunk,
    LoraConfig,
    MetricEntry,
    ModelInput,
    OptimStepResult,
    SamplingParams,
    SessionConfig,
    Unsupported,
    Usage,
)

from .arrays import SHORT, array_of, plain_array
from .failures import error_of, plain_error
from .texts import is_text, plain_text, text_of, with_article

Json: TypeAlias = Any
"""What `json` can write: None, booleans, numbers, texts, lists and tables."""

_LARGE = 1 << 2000
"""Python reads no integer of more than 4300 digits."""
SHORT_TEXT = 2000
"""Characters of a text in arguments that are written; a longer one is a digest."""

RECORDS: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(AdamParams, Completion, CompletionChunk, Datum, EncodedTextChunk, ForwardBackwardResult),
        *(ImageChunk, LoraConfig, MetricEntry, ModelInput, OptimStepResult, SamplingParams),
        *(SessionConfig, Usage),
    )
}
"""The values that travel through ports, by the names of their classes."""


class Unreadable(ValueError):
    """A line of a cassette that does not hold what it should."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """Turns values into JSON.

    Args:
        masked: returns a text without secrets.
        briefly: whether long arrays and texts are digests, which can be compared, and not read.
        texts: whether texts are written all the same, however long they are.
    """

    masked: Callable[[str], str]
    briefly: bool = False
    texts: bool = False

    def __call__(self, value: Any) -> Json:
        """Return a value as JSON; of what a cassette cannot hold, only its type."""
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is int:
            return value if -_LARGE < value < _LARGE else {"$int": hex(value)}
        if kind is str:
            return self._text(value)
        if kind is float:
            return value if math.isfinite(value) else {"$float": repr(value)}
        if kind in (list, tuple):
            return self._sequence(value) if kind is list else {"$tuple": self._sequence(value)}
        if isinstance(value, np.ndarray | np.generic):
            tag = "$array" if isinstance(value, np.ndarray) else "$scalar"
            array = value if isinstance(value, np.ndarray) else np.asarray(value)
            if (about := plain_array(array, self.briefly)) is None:
                return {"$unrecordable": f"{kind.__name__} of {array.dtype}"}
            return {tag: about}
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(bytes(value))
        return self._other(value)

    def _other(self, value: Any) -> Json:
        kind = type(value)
        if RECORDS.get(kind.__name__) is kind:
            fields = {f.name: self(getattr(value, f.name)) for f in dataclasses.fields(kind)}
            return {f"${kind.__name__}": fields}
        if isinstance(value, AdapterError):
            return {"$error": plain_error(value, self)}
        if isinstance(value, range):
            return {"$range": [value.start, value.stop, value.step]}
        if isinstance(value, datetime.timedelta):
            return {"$timedelta": [value.days, value.seconds, value.microseconds]}
        if (written := plain_text(value, self.masked)) is not None:
            return written
        if isinstance(value, Mapping):
            return self._mapping(value)
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, int):  # an enumeration, say
            return self(int(value))
        if isinstance(value, float):
            return self(float(value))
        if isinstance(value, tuple):
            return self((*value,))
        if isinstance(value, Sequence):
            return self._sequence([*value])
        return {"$unrecordable": f"{kind.__module__}.{kind.__qualname__}"}

    def _text(self, text: str) -> Json:
        if self.briefly and not self.texts and len(text) > SHORT_TEXT:
            if (without := self.masked(text)) != text:
                return without  # from a digest, a weak secret could be guessed
            content = text.encode(errors="surrogatepass")
            return {"$text": len(text), "sha256": hashlib.sha256(content).hexdigest()}
        return self.masked(text)

    def _bytes(self, value: bytes) -> Json:
        if self.briefly:
            return digested(len(value), hashlib.sha256(value).hexdigest())
        try:
            text = value.decode()
        except UnicodeDecodeError:
            # Each byte a character, so that a secret among them is found as well.
            hidden = self.masked(value.decode("latin-1")).encode("latin-1", "replace")
            return {"$bytes": base64.b64encode(hidden).decode()}
        return {"$bytes": {"text": self.masked(text)}}

    def _sequence(self, items: Sequence[Any]) -> Json:
        if self.briefly and len(items) > SHORT and {int}.issuperset(map(type, items)):
            written = json.dumps(items).encode()
            return {"$ints": len(items), "sha256": hashlib.sha256(written).hexdigest()}
        return [*map(self, items)]

    def _mapping(self, value: Mapping[Any, Any]) -> Json:
        items = [*value.items()]
        if all(type(name) is str and not name.startswith("$") for name, _ in items):
            plain = {self.masked(name): self(item) for name, item in items}
            if len(plain) == len(items):
                return plain
        keys = [self(name) for name, _ in items]
        if len({*map(json.dumps, keys)}) < len(keys):
            return {"$unrecordable": f"{type(value).__name__} with keys that are alike once masked"}
        return {"$dict": [[key, self(item)] for key, (_, item) in zip(keys, items, strict=True)]}


def unrecordable(plain: Json) -> str | None:
    """Return the type of something in JSON that a cassette cannot hold, with its article; None if
    there is none.
    """
    if isinstance(plain, dict):
        if "$unrecordable" in plain:
            return with_article(plain["$unrecordable"])
        plain = () if "$array" in plain else plain.values()
    elif not isinstance(plain, list):
        return None
    inside = (unrecordable(each) for each in plain if type(each) in (dict, list))
    return next(filter(None, inside), None)


def digested(length: int, sha256: str) -> Json:
    """Return what stands for bytes in arguments."""
    return {"$bytes": length, "sha256": sha256}


def value_of(plain: Json) -> Any:
    """Return the value that JSON stands for.

    Raises:
        Unsupported: it was of a type that a cassette cannot hold.
        Unreadable: it stands for nothing.
    """
    if isinstance(plain, list):
        return [*map(value_of, plain)]
    if not isinstance(plain, dict):
        return plain
    tag = next((name for name in plain if name.startswith("$")), None)
    if tag is None:
        return {name: value_of(item) for name, item in plain.items()}
    try:
        return _tagged(tag, plain[tag])
    except (Unsupported, Unreadable):
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Unreadable(f"{tag} holds something else: {error}") from None


def _table_of(items: Sequence[Any]) -> dict[Any, Any]:
    made = {value_of(name): value_of(item) for name, item in items}
    if len(made) < len(items):
        raise Unreadable("$dict holds two keys that are the same")
    return made


def _tagged(tag: str, inside: Any) -> Any:
    if tag == "$float":
        return float(inside)
    if tag == "$tuple":
        return tuple(map(value_of, inside))
    if tag == "$dict":
        return _table_of(inside)
    if tag == "$bytes":
        return inside["text"].encode() if isinstance(inside, dict) else base64.b64decode(inside)
    if tag == "$int":
        return int(inside, 16)
    if tag == "$array":
        return array_of(inside)
    if tag == "$scalar":
        return array_of(inside)[()]
    if tag == "$range":
        return range(*inside)
    if tag == "$timedelta":
        return datetime.timedelta(*inside)
    if tag == "$error":
        return error_of(inside, value_of)
    if is_text(tag):
        return text_of(tag, inside)
    if (kind := RECORDS.get(tag[1:])) is not None:
        return kind(**{name: value_of(item) for name, item in inside.items()})
    if tag == "$unrecordable":
        raise Unsupported(f"the answer holds {with_article(inside)}, which a cassette cannot hold")
    raise Unreadable(f"{tag} is not known")
