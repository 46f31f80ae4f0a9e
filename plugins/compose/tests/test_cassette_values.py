"""A value comes back from a cassette as it was, or not at all."""

from __future__ import annotations

import collections
import datetime
import enum
import json
import uuid
import zoneinfo
from pathlib import Path
from typing import Any

import crucible_adapter_compose.cassette as cassettes
import numpy as np
import pytest
from crucible_adapter_compose.cassette.failures import (
    error_of,
    exception_of,
    plain_error,
    plain_exception,
)
from crucible_adapter_compose.cassette.values import Plain, Unreadable, unrecordable, value_of
from crucible_kitchen import (
    PORTS,
    AdapterOptions,
    BlobStore,
    Kitchen,
    Unavailable,
    Unsupported,
    hookimpl,
)

NOOP = {"use": "noop", "latency_scale": 0}
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
Pair = collections.namedtuple("Pair", "left right")


class Level(enum.IntEnum):
    HIGH = 3


class Weight(float): ...


class Instant(datetime.datetime):
    """As those of pandas, which have nanoseconds."""


class WithRules(datetime.tzinfo):
    """As those of dateutil and pytz: one hour, another one in summer."""

    def utcoffset(self, when: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(hours=2 if when and 3 < when.month < 11 else 1)

    def dst(self, when: datetime.datetime | None) -> datetime.timedelta:
        return self.utcoffset(when) - datetime.timedelta(hours=1)

    def tzname(self, when: datetime.datetime | None) -> str:
        return "CEST" if self.dst(when) else "CET"


def again(value: Any) -> Any:
    return value_of(json.loads(json.dumps(Plain(str)(value), allow_nan=False)))


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2026, 7, 1, 12, tzinfo=BERLIN),
        datetime.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
        datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=-3))),
        datetime.time(12, 30, tzinfo=BERLIN),
        datetime.time(12, 30, 1, 5, tzinfo=datetime.UTC),
        datetime.time(12, 30),
        datetime.datetime(2026, 7, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "CET")),
        datetime.datetime(2026, 7, 1, tzinfo=datetime.timezone(datetime.timedelta(0, 1, 1))),
        datetime.datetime(2026, 10, 25, 2, 30, fold=1),
        datetime.time(2, 30, fold=1, tzinfo=datetime.UTC),
    ],
    ids=str,
)
def test_a_time_keeps_its_zone(value: Any) -> None:
    made = again(value)
    assert made == value
    assert (made.tzinfo, made.fold, type(made)) == (value.tzinfo, value.fold, type(value))
    assert made.tzname() == value.tzname()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), np.float32),
        np.array(-0.0),
        np.array([1, 2], ">i4"),
        np.arange(200, dtype=">f8"),
        np.array([2**64 - 1], np.uint64),
        np.array([np.nan, -np.inf, -0.0], np.float16),
        np.array([1 + 2j, complex(np.nan, -0.0)], np.complex64),
        np.asfortranarray(np.arange(200.0).reshape(20, 10)),
        np.array([True, False]),
        np.arange(12)[::-2],
    ],
    ids=lambda array: f"{array.dtype.str} {array.shape}",
)
def test_an_array_keeps_its_bits_its_type_and_its_shape(array: np.ndarray[Any, Any]) -> None:
    made = again(array)
    native = array.astype(array.dtype.newbyteorder("="))
    assert (made.dtype, made.shape, made.tobytes()) == (native.dtype, array.shape, native.tobytes())


@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_array([1, 2], [True, False]),
        Instant(2026, 1, 2),
        datetime.datetime(2026, 1, 2, tzinfo=WithRules()),
        datetime.time(1, tzinfo=WithRules()),
        np.longdouble(1) / 3,
        np.array([1], np.longdouble),
        np.datetime64("2026-01-02"),
        np.array(["text"]),
        {1, 2},
        1j,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_lose_something_is_not_recorded(value: Any) -> None:
    assert unrecordable(json.loads(json.dumps(Plain(str)([value])))) is not None


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Pair(1, (2, [3])), (1, (2, [3]))),
        (Level.HIGH, 3),
        (Weight(-0.0), -0.0),
        (True, True),
        (-(2**200), -(2**200)),
        (10**5000, 10**5000),
        ({"$array": [1], "$unrecordable": "x"}, {"$array": [1], "$unrecordable": "x"}),
        ([], []),
        ((), ()),
        ({}, {}),
        (collections.deque([1, (2,)]), [1, (2,)]),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (bytearray(b"a"), b"a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_what_it_was(value: Any, kept: Any) -> None:
    made = again(value)
    assert made == kept
    assert type(made) is type(kept)
    if isinstance(kept, float):
        assert str(made) == str(kept)


def without_keys(text: str) -> str:
    return "**********" if text.startswith("key") else text


@pytest.mark.parametrize(
    "table",
    [
        {"key1": 1, "key2": 2},
        {"key1": 1, "**********": 2},
        {Path("key1"): 1, Path("key2"): 2, 3: 4},
        {("key1", 1): 1, ("key2", 1): 2},
    ],
    ids=str,
)
def test_a_table_with_keys_of_which_the_same_remains_is_not_recorded(table: Any) -> None:
    plain = json.loads(json.dumps(Plain(without_keys)([table])))
    assert "key1" not in json.dumps(plain)
    assert unrecordable(plain) == "a dict with keys that are alike once masked"
    with pytest.raises(Unsupported, match="dict with keys that are alike"):
        value_of(plain)


def test_a_table_with_two_keys_that_are_the_same_is_damaged() -> None:
    with pytest.raises(Unreadable, match="two keys that are the same"):
        value_of({"$dict": [["a", 1], ["a", 2]]})


def test_what_has_no_form_once_masked_is_not_recorded() -> None:
    secret = uuid.UUID(int=7)
    plain = Plain(lambda text: text.replace(str(secret), "**********"))({"token": secret})
    assert str(secret) not in json.dumps(plain)
    assert unrecordable(plain) == "a uuid.UUID"


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a"),
        OSError(2, "No such file", "a.txt"),
        OSError(18, "Invalid cross-device link", "a.txt", None, "b.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        ValueError("a", 1),
        ValueError(),
        json.JSONDecodeError("bad", "{", 1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_of_a_helper_keeps_its_text_and_its_arguments(error: Exception) -> None:
    about = json.loads(json.dumps(plain_exception(error, Plain(str))))
    made = exception_of(about, value_of)
    if type(error).__module__ != "builtins":
        assert str(made) == f"JSONDecodeError: {error}"
        return
    assert (type(made), made.args, str(made)) == (type(error), error.args, str(error))
    for name in ("errno", "filename", "filename2"):
        assert getattr(made, name, None) == getattr(error, name, None)


def test_an_exception_holds_no_secret() -> None:
    def masked(text: str) -> str:
        return text.replace("hunter2", "**********")

    error = OSError(13, "not with hunter2", "/hunter2/a")
    assert "hunter2" not in json.dumps(plain_exception(error, Plain(masked)))


def test_an_error_with_details_that_cannot_be_recorded_is_the_same_error() -> None:
    error = Unavailable("down", details={"response": object(), "code": 503})
    made = error_of(json.loads(json.dumps(plain_error(error, Plain(str)))), value_of)
    assert type(made) is Unavailable
    assert made.details == {
        "code": 503,
        "response": "builtins.object, which a cassette cannot hold",
    }


# --- at an adapter ---


class Fails:
    class Options(AdapterOptions):
        inner: BlobStore

    @hookimpl
    def around(self, call: Any) -> Any:
        raise Unavailable("down", details={"response": object()})


def bind(port: str, file: Path, mode: str, inner: Any) -> tuple[Kitchen, Any]:
    table = {"use": getattr(cassettes, port), "file": file, "mode": mode, "inner": inner}
    kitchen = Kitchen({port: table})
    return kitchen, kitchen.port(PORTS[port])


def test_a_call_that_failed_with_such_details_is_replayed(tmp_path: Path) -> None:
    file = tmp_path / "cassette.jsonl"
    for mode in ("record", "replay"):
        kitchen, store = bind("blob_store", file, mode, {"use": Fails(), "inner": NOOP})
        with kitchen, pytest.raises(Unavailable, match="down"):
            store.read("a")
