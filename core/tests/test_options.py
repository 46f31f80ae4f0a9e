"""Options: frozen, strict, with defaults from the ecosystem's variables and masked secrets."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from crucible_kitchen import AdapterOptions, FromEnv, Keyword, resource
from crucible_kitchen.masking.mask import MASK
from crucible_kitchen.masking.models import visible
from crucible_kitchen.masking.secrets import is_secret, redacted
from crucible_kitchen.options.texts import Typed
from pydantic import BaseModel, Secret, SecretStr, ValidationError


class Options(AdapterOptions):
    """The options of an adapter."""

    bucket: str = "runs"
    """Bucket that holds every blob."""
    key: Annotated[SecretStr | None, FromEnv("ACME_KEY")] = None
    """Key of the account."""
    headers: Secret[dict[str, str]] | None = None
    """Sent with each request."""


@resource
def made(opts: Options) -> object:
    return object()


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Options().bucket = "other"  # type: ignore[misc]


def test_unknown_keys_are_refused_without_repeating_the_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Options(bukcet="hunter2")  # type: ignore[call-arg]
    assert "hunter2" not in str(caught.value)


def test_the_docstring_of_a_field_is_its_description() -> None:
    assert Options.model_fields["bucket"].description == "Bucket that holds every blob."


def test_an_environment_variable_is_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "from-env")
    key = Options().key
    assert key is not None
    assert key.get_secret_value() == "from-env"
    given = Options(key=SecretStr("given")).key
    assert given is not None
    assert given.get_secret_value() == "given"


def test_a_variable_may_be_declared_inside_an_optional_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Inside(AdapterOptions):
        key: Annotated[SecretStr, FromEnv("ACME_KEY")] | None = None
        keys: list[Annotated[str, FromEnv("ACME_KEY")]] = []  # noqa: RUF012

    monkeypatch.setenv("ACME_KEY", "from-env")
    assert Inside() == Inside(key=SecretStr("from-env"), keys=[])


def test_of_several_variables_the_first_that_is_set_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Several(AdapterOptions):
        key: Annotated[str, FromEnv("ACME_A"), FromEnv("ACME_B"), FromEnv("ACME_C")] = ""

    monkeypatch.setenv("ACME_A", "")
    monkeypatch.setenv("ACME_B", "b")
    monkeypatch.setenv("ACME_C", "c")
    assert Several().key == "b"


def test_secrets_are_masked_wherever_options_are_shown() -> None:
    opts = Options(key=SecretStr("hunter2"), headers=Secret({"auth": "hunter2"}))
    assert visible(opts) == {"bucket": "runs", "key": MASK, "headers": MASK}
    assert "hunter2" not in f"{opts!r} {opts}"


def test_the_password_of_a_url_is_masked_whatever_its_field_is() -> None:
    class Where(AdapterOptions):
        url: str
        mirrors: dict[str, list[str]]

    opts = Where(url="https://me:hunter2@host:80/p", mirrors={"a": ["s3://k:hunter2@b", "x:y@z"]})
    assert visible(opts) == {
        "url": f"https://{MASK}@host:80/p",
        "mirrors": {"a": [f"s3://{MASK}@b", "x:y@z"]},
    }
    said = redacted("cannot reach https://me:hunter2@host:80", opts)
    assert said == f"cannot reach https://{MASK}@host:80"


def test_a_field_that_can_hold_a_secret_is_masked_whatever_it_holds() -> None:
    class Either(AdapterOptions):
        key: str | SecretStr
        """pydantic keeps a str as a str."""

    assert visible(Either(key="hunter2")) == {"key": MASK}


@pytest.mark.parametrize(
    ("annotation", "secret"),
    [
        (str, False),
        (SecretStr, True),
        (SecretStr | None, True),
        (dict[str, SecretStr], True),
        (Secret[dict[str, str]], True),
        (list[str] | None, False),
    ],
)
def test_a_type_that_can_hold_a_secret_counts_as_secret(annotation: Any, secret: bool) -> None:
    assert is_secret(annotation) is secret


@pytest.mark.parametrize(
    "travel", [copy.copy, copy.deepcopy, lambda opts: pickle.loads(pickle.dumps(opts))]
)
def test_a_copy_of_options_starts_without_resources(
    travel: Callable[[Options], Options],
) -> None:
    opts = Options(bucket="b")
    original = made(opts)
    arrived = travel(opts)
    assert arrived == opts
    assert made.peek(arrived) is None
    assert made(arrived) is not original
    assert made(opts) is original


@pytest.mark.parametrize(
    ("typed", "read"),
    [("false", False), ("96", 96), ("1e-3", 1e-3), ("null", None), ("a b", "a b"), ('"9"', '"9"')],
)
def test_a_keyword_that_was_typed_is_read_as_json(typed: str, read: Any) -> None:
    class Passing(BaseModel):
        kwargs: dict[str, Keyword]

    found = Passing(kwargs={"x": Typed(typed), "deep": {"x": Typed(typed)}, "code": "96"}).kwargs
    assert found == {"x": read, "deep": {"x": read}, "code": "96"}
    assert type(found["x"]) is type(read)
