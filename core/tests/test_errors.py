"""Errors: one family, each also the builtin that people expect, and able to travel."""

from __future__ import annotations

import copy
import pickle

import pytest
from crucible_kitchen import errors
from crucible_kitchen.errors import AdapterError, InvalidInput, NotFound, RateLimited

ADAPTER_ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, AdapterError)
]


@pytest.mark.parametrize("kind", ADAPTER_ERRORS)
@pytest.mark.parametrize("travel", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_an_error_travels_between_processes_with_all_its_fields(kind, travel) -> None:
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


@pytest.mark.parametrize("travel", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_an_error_of_an_adapters_own_class_travels_whatever_its_arguments(travel) -> None:
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


def test_whether_a_repeat_may_help_has_a_default_and_can_be_told() -> None:
    assert not NotFound("gone").retryable
    assert NotFound("not there yet", retryable=True).retryable
    assert RateLimited("slow down", retry_after=3).retryable
    assert InvalidInput("no").no_effect
    assert not AdapterError("unknown").no_effect
