"""The kitchen: what is bound when, what it reads, and what it says of a mistake in options."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pytest
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    AdapterOptions,
    BindError,
    BlobStore,
    ConfigurationError,
    FromEnv,
    Kitchen,
    WorkflowConfig,
    hookimpl,
    resource,
)
from pydantic import BaseModel, SecretStr, model_validator

SECRET = "hunter2-do-not-tell"


class Store:
    """A blob store that holds nothing; an object does as well as a module."""

    def __init__(self, options: type[AdapterOptions] = AdapterOptions) -> None:
        self.Options = options

    @hookimpl
    def read(self, path: str) -> bytes:
        return b""

    @hookimpl
    def stream(self, path: str, chunk_size: int) -> Iterator[bytes]:
        return iter([b""])

    @hookimpl
    def write(self, path: str, data: bytes) -> None: ...

    @hookimpl
    def exists(self, path: str) -> bool:
        return False


def said_of(options: type[AdapterOptions], **table: Any) -> str:
    kitchen = Kitchen({"blob_store": {"use": Store(options), **table}})
    with pytest.raises(ConfigurationError) as caught:
        _ = kitchen.blob_store
    return str(caught.value)


# --- binding ---


def test_threads_bind_a_port_once() -> None:
    made: list[int] = []

    class Counted(AdapterOptions):
        @model_validator(mode="after")
        def _count(self) -> Counted:
            made.append(1)
            return self

    barrier = threading.Barrier(8)
    kitchen = Kitchen({"blob_store": Store(Counted)})

    def use() -> BlobStore:
        barrier.wait()
        return kitchen.blob_store

    with ThreadPoolExecutor(8) as pool:
        ports = [f.result() for f in [pool.submit(use) for _ in range(8)]]
    assert len({id(port) for port in ports}) == len(made) == 1


def test_a_port_is_bound_on_first_use_and_anew_after_close() -> None:
    kitchen = Kitchen({"blob_store": Store()})
    assert kitchen.describe() == {}
    first = kitchen.blob_store
    assert kitchen.blob_store is first
    kitchen.close()
    assert kitchen.describe() == {}
    assert kitchen.blob_store is not first


class Closing(Store):
    def __init__(self, log: list[str], name: str, error: Exception | None = None) -> None:
        super().__init__()
        self.log, self.name, self.error = log, name, error

    @hookimpl
    def close(self) -> None:
        self.log.append(self.name)
        if self.error:
            raise self.error


def test_adapters_of_a_workflow_and_in_lists_are_closed_with_the_kitchen() -> None:
    class Config(WorkflowConfig):
        teacher: BlobStore
        others: list[BlobStore]
        by_name: dict[str, BlobStore]

    closed: list[str] = []
    with Kitchen() as kitchen:
        table = {
            "teacher": Closing(closed, "teacher"),
            "others": [Closing(closed, "first"), {"use": Closing(closed, "second")}],
            "by_name": {"a": Closing(closed, "third")},
        }
        kitchen.configure(Config, table, ("workflow",))
    assert closed == ["teacher", "first", "second", "third"]


def test_a_failure_while_closing_hides_no_earlier_one() -> None:
    stuck = Closing([], "stuck", OSError("stuck"))

    def use(error: Exception | None) -> None:
        with Kitchen({"blob_store": stuck}) as kitchen:
            _ = kitchen.blob_store
            if error:
                raise error

    with pytest.raises(KeyError, match="first"):
        use(KeyError("first"))
    with pytest.raises(AdapterError, match="stuck"):
        use(None)


def test_two_kitchens_with_equal_options_share_no_resource() -> None:
    @resource
    def connection(opts: AdapterOptions) -> object:
        return object()

    store = Store()
    one, two = (Kitchen({"blob_store": store}).blob_store.options for _ in range(2))
    assert one == two
    assert connection(one) is not connection(two)


@pytest.mark.parametrize("value", [5, True, 1.5, ["acme"], {"use": ["acme"]}, {"use": 5}])
def test_what_can_be_no_adapter_is_said_to_be_none(value: Any) -> None:
    with pytest.raises(BindError, match=r"adapters\.blob_store: name the adapter by a text, not a"):
        _ = Kitchen({"blob_store": value}).blob_store


def test_an_option_called_use_is_refused_since_nobody_could_set_it() -> None:
    class Options(AdapterOptions):
        use: str = "x"

    assert "no option can be called 'use'" in said_of(Options)


# --- what it reads ---


def test_a_kitchen_made_in_code_reads_no_file_and_no_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crucible.toml").write_text('adapters.blob_store = "acme"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRUCIBLE_ADAPTERS__METRICS_STORE", "acme")
    monkeypatch.setenv("CRUCIBLE_NONSENSE", "1")
    assert Kitchen().configured == ()


def test_code_goes_before_every_other_layer(tmp_path: Path) -> None:
    class Options(AdapterOptions):
        bucket: str = "default"
        region: str = "default"

    file = tmp_path / "a.toml"
    file.write_text('adapters.blob_store = { use = "acme", bucket = "file" }')
    store = Store(Options)
    kitchen = Kitchen.load(
        file,
        arguments=["adapters.blob_store.bucket=argument"],
        environ={"CRUCIBLE_ADAPTERS__BLOB_STORE__REGION": "variable"},
        adapters={"blob_store": {"use": store, "bucket": "code"}},
    )
    assert kitchen.blob_store.options == Options(bucket="code")  # another adapter than the file's


# --- mistakes in options ---


class Login(BaseModel, extra="forbid"):
    user: str = "me"


class Nested(AdapterOptions):
    login: Login | None = None
    adam: AdamParams = AdamParams()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lgin": {}}, "lgin: Store has no such key; did you mean 'login'? (from code)"),
        ({"zzz": 1}, "zzz: Store has no such key; it has login, adam (from code)"),
        ({"login": {"usr": "x"}}, "login.usr: there is no such key; did you mean 'user'?"),
        ({"adam": {"beta3": 1}}, "adam.beta3: there is no such key; did you mean 'beta"),
        ({"adam": {"zzz": 1}}, "adam.zzz: there is no such key; it has beta1, beta2, eps,"),
    ],
)
def test_a_misspelt_key_gets_the_nearest_spelling_at_any_depth(
    table: dict[str, Any], message: str
) -> None:
    assert message in said_of(Nested, **table)


def test_the_workflows_configuration_gets_the_same_care() -> None:
    class Config(WorkflowConfig):
        login: Login = Login()

    with pytest.raises(ConfigurationError, match=r"workflow\.login\.usr: .* 'user'"):
        Kitchen().configure(Config, {"login": {"usr": "x"}}, ("workflow",))


def test_a_wrong_value_in_the_ecosystems_variable_is_said_to_come_from_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Options(AdapterOptions):
        port: Annotated[int, FromEnv("ACME_PORT")] = 80

    class Outer(AdapterOptions):
        inner: BlobStore

    monkeypatch.setenv("ACME_PORT", SECRET)
    for said in (said_of(Options), said_of(Outer, inner={"use": Store(Options)})):
        assert "(from environment variable ACME_PORT)" in said
        assert SECRET not in said
    assert "(from code)" in said_of(Options, port="x")


def test_options_that_raise_what_they_should_not_are_a_mistake_of_the_adapter() -> None:
    class Options(AdapterOptions):
        key: str = ""

        @model_validator(mode="after")
        def _look(self) -> Options:
            raise KeyError(self.key)

    kitchen = Kitchen({"blob_store": {"use": Store(Options), "key": SECRET}})
    with pytest.raises(BindError, match=r"the Options of 'Store' raised KeyError") as caught:
        _ = kitchen.blob_store
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_no_representation_shows_a_secret() -> None:
    class Options(AdapterOptions):
        api_key: SecretStr

    kitchen = Kitchen({"blob_store": {"use": Store(Options), "api_key": SECRET}})
    port = kitchen.blob_store
    shown = f"{kitchen!r} {kitchen.settings!r} {port!r} {port.options!r} {port._binding!r}"
    assert SECRET not in shown + str(kitchen.describe())
