"""Errors: one family, each also the builtin that people expect, and able to travel."""

from __future__ import annotations

import copy
import errno
import math
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from crucible_kitchen import causes, check_positive, did_you_mean, errors
from crucible_kitchen.errors import (
    AdapterError,
    AdapterTimeout,
    InvalidInput,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    explain_os_errors,
)

ADAPTER_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, AdapterError)
]


Travel = Callable[[AdapterError], AdapterError]


def pickled(error: AdapterError) -> AdapterError:
    arrived = pickle.loads(pickle.dumps(error))
    assert isinstance(arrived, AdapterError)
    return arrived


@pytest.mark.parametrize("kind", ADAPTER_ERRORS)
@pytest.mark.parametrize("travel", [copy.copy, pickled])
def test_an_error_travels_between_processes_with_all_its_fields(
    kind: type[AdapterError], travel: Travel
) -> None:
    error = kind("why", retryable=True, no_effect=True, details={"status": 503})
    error.port, error.adapter, error.callback = "blob_store", "acme", "read"
    if isinstance(error, RateLimited):
        error.retry_after = 1.5
    arrived = travel(error)
    assert type(arrived) is kind
    assert vars(arrived) == vars(error)
    assert str(arrived) == "blob_store.acme.read: why"


class AcmeError(NotFound):
    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}", details={"status": status})


@pytest.mark.parametrize("travel", [copy.copy, pickled])
def test_an_error_of_an_adapters_own_class_travels_whatever_its_arguments(travel: Travel) -> None:
    error = AcmeError(404, "gone")
    arrived = travel(error)
    assert type(arrived) is AcmeError
    assert (str(arrived), arrived.args) == (str(error), error.args)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize(
    "error", [errors.ConfigurationError("a: is wrong (from code)"), errors.BindError("no adapter")]
)
def test_a_mistake_in_the_configuration_travels_too(error: Exception) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived)) == (type(error), str(error))


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("NotFound", LookupError),
        ("AlreadyExists", FileExistsError),
        ("InvalidInput", ValueError),
        ("Unauthorized", PermissionError),
        ("AdapterTimeout", TimeoutError),
        ("Unavailable", ConnectionError),
        ("Unsupported", NotImplementedError),
        ("SessionClosed", RuntimeError),
        ("SessionFailed", RuntimeError),
    ],
)
def test_an_error_is_also_the_builtin_that_people_expect(name: str, builtin: type) -> None:
    assert issubclass(getattr(errors, name), builtin)


def test_whether_a_repeat_may_help_has_a_default_and_can_be_given() -> None:
    assert not NotFound("gone").retryable
    assert NotFound("not there yet", retryable=True).retryable
    assert RateLimited("slow down", retry_after=3).retryable
    assert InvalidInput("no").no_effect
    assert not AdapterError("unknown").no_effect


# --- errors of the operating system ---

OF_THE_SYSTEM = {
    Unavailable: "ENOSPC EDQUOT EFBIG EIO EMFILE ENFILE ENOMEM EBUSY ESTALE EAGAIN EPIPE",
    Unauthorized: "EACCES EPERM EROFS",
    InvalidInput: "ENAMETOOLONG ELOOP ENOTDIR EISDIR EEXIST",
    NotFound: "ENOENT",
    AdapterTimeout: "ETIMEDOUT",
    AdapterError: "EINVAL EXDEV EBADF",
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for kind, names in OF_THE_SYSTEM.items() for name in names.split()],
)
def test_an_error_of_the_system_is_what_it_stands_for(name: str, kind: type[AdapterError]) -> None:
    number = getattr(errno, name)
    cause = OSError(number, os.strerror(number), "/runs/a")
    with pytest.raises(AdapterError) as caught, explain_os_errors("cannot write to /runs"):
        raise cause
    assert type(caught.value) is kind
    assert str(caught.value) == f"cannot write to /runs: {os.strerror(number)} (/runs/a)"
    assert caught.value.__cause__ is cause
    assert caught.value.no_effect == kind.no_effect


def test_an_error_of_the_system_without_a_number_is_known_by_its_class() -> None:
    with (
        pytest.raises(NotFound, match="cannot read: s3://bucket/key") as caught,
        explain_os_errors("cannot read", no_effect=True),
    ):
        raise FileNotFoundError("s3://bucket/key")
    assert caught.value.no_effect


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("something else")])
def test_any_other_error_passes_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_os_errors("cannot write"):
        raise error
    assert caught.value is error
    assert error.__cause__ is None


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


class Hollow(str):
    def __format__(self, how: str) -> str:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError


class Strange(Exception):
    def __str__(self) -> str:
        return Hollow("odd")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("a"), "KeyError: 'a'"),
        (SystemExit(), "SystemExit"),
        (SystemExit(0), "SystemExit: 0"),
        (Mute("unheard"), "Mute"),
        (Strange(), "Strange: odd"),
    ],
)
def test_any_exception_can_be_described(error: BaseException, text: str) -> None:
    assert errors.described(error) == text


def test_an_error_whose_class_never_called_ours_still_has_its_fields() -> None:
    @dataclass
    class Own(errors.AdapterError):
        status: int

    error = Own(404)
    assert (error.reason, error.port, error.adapter, error.callback) == ("", None, None, None)
    assert not error.retryable


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, None),
        (0, 0),
        (2.5, 2.5),
        (-1.0, None),
        (math.nan, None),
        (math.inf, 86_400.0),
        (10**400, 86_400.0),
        ("60", None),
    ],
)
def test_an_impossible_wait_is_not_kept(said: Any, kept: float | None) -> None:
    assert RateLimited("slow down", retry_after=said).retry_after == kept


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"RETRY-AFTER": "0"}, 0),
        ({"Retry-After": "9" * 5000}, 86_400),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0),
        ({"Retry-After": "Sunday, 06-Nov-94 08:49:37 GMT"}, 0),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, 86_400),
        ({"Retry-After": "Fri Dec 31 23:59:59 9999"}, 86_400),
        *(
            ({"Retry-After": rubbish}, None)
            for rubbish in (
                *("", "soon", "-5", "nan", "inf", "1e9", "1 2", "٣"),
                "Thu, 01 Jan 99999 00:00:00 GMT",
                f"Thu, {'9' * 400} Jan 2030 00:00:00 GMT",
                f"Thu, 01 Jan 2030 {'9' * 5000}:00:00 GMT",
            )
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_wait_that_a_response_asks_for_is_read_in_each_of_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert RateLimited.retry_after_of(headers) == seconds


def test_a_date_is_a_wait_from_now() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert RateLimited.retry_after_of({"Retry-After": at}) == pytest.approx(3_600, abs=60)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_a_date_without_a_time_zone_is_in_gmt(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        at = (datetime.now(UTC) + timedelta(hours=1)).strftime("%a %b %d %H:%M:%S %Y")
        assert RateLimited.retry_after_of({"Retry-After": at}) == pytest.approx(3_600, abs=60)
    finally:
        monkeypatch.undo()
        time.tzset()


def raised(raise_it: Callable[[], object]) -> Exception:
    try:
        raise_it()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_causes_are_followed_where_a_library_hides_them_too() -> None:
    first, second, third = KeyError("first"), ValueError("second"), OSError("third")

    def hiding() -> None:
        try:
            try:
                raise first
            except KeyError as error:
                raise second from error
        except ValueError:
            raise third from None

    assert [*causes(raised(hiding))] == [third, second, first]
    assert [*causes(third, until=first)] == [third, second]
    assert [*causes(None)] == []


def test_causes_in_a_circle_end() -> None:
    first, second = KeyError("first"), ValueError("second")
    first.__context__, second.__cause__ = second, first
    assert [*causes(first)] == [first, second]


def test_a_count_is_positive_or_a_default() -> None:
    check_positive("buffer_size", None)
    check_positive("buffer_size", 1)
    with pytest.raises(InvalidInput, match=r"^buffer_size must be at least 1, not 0$"):
        check_positive("buffer_size", 0)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("weigths", "; did you mean 'weights'?"), ("zzz", ""), (3, "")],
)
def test_a_hint_names_the_nearest_spelling_or_is_empty(name: object, hint: str) -> None:
    said = did_you_mean(name, ["target_tokens", "weights"])
    assert said.startswith(hint)
    assert bool(said) == bool(hint)
