"""The kitchen: when it binds, what it reads, and what it says about mistakes in options."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, ClassVar
from unittest.mock import ANY

import pytest
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    AdapterNotFound,
    AdapterOptions,
    BindError,
    BlobStore,
    ConfigurationError,
    FromEnv,
    Kitchen,
    LoraConfig,
    Name,
    Template,
    WorkflowConfig,
    hookimpl,
    resource,
    run,
)
from crucible_kitchen.settings import in_code, load
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

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


def test_a_port_is_bound_on_first_use_and_again_after_close() -> None:
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
def test_a_value_that_cannot_be_an_adapter_is_refused_by_its_type(value: Any) -> None:
    with pytest.raises(
        BindError, match=r"adapters\.blob_store: name the adapter by a string, not a"
    ):
        _ = Kitchen({"blob_store": value}).blob_store


def test_an_option_called_use_is_refused_because_it_could_never_be_set() -> None:
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


def test_code_overrides_every_other_layer(tmp_path: Path) -> None:
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


# --- line breaks in texts ---


def configured(**given: Any) -> Config:
    settings = load(**{"environ": {}, **given})
    kitchen = Kitchen(settings=settings)
    return kitchen.configure(Config, {"model": "m", **settings.values["workflow"]}, ("workflow",))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"{question}\n", "{question}\n"),  # it begins like JSON
        (r"[INST] {q}\n\t[/INST]", "[INST] {q}\n\t[/INST]"),
        (r"a\\nb", r"a\nb"),
        (r"\\\n", "\\\n"),
        (r"\boxed{} \d \\", "\\boxed{} \\d \\"),
        ("already\na line", "already\na line"),
    ],
)
def test_a_template_that_was_typed_has_its_line_breaks(written: str, meant: str) -> None:
    assert configured(arguments=[f"workflow.prompt={written}"]).prompt == meant
    assert configured(environ={"CRUCIBLE_WORKFLOW__PROMPT": written}).prompt == meant


def test_other_texts_and_those_of_files_and_code_stay_as_written(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(r"workflow.prompt = '{q}\n'")
    assert configured(path=file).prompt == r"{q}\n"
    assert configured(code={"workflow": {"prompt": r"{q}\n"}}).prompt == r"{q}\n"
    assert configured(arguments=[r"workflow.path=C:\new\table"]).path == r"C:\new\table"


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_what_is_escaped_comes_back_as_it_was(text: str) -> None:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n").replace("\t", r"\t")
    prompt = configured(arguments=[f"workflow.prompt=x{escaped}"]).prompt
    assert (prompt, type(prompt)) == (f"x{text}", str)


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


def test_options_that_raise_an_unexpected_error_are_a_mistake_of_the_adapter() -> None:
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


# --- all mistakes at once ---


class Config(WorkflowConfig):
    """The configuration of a workflow that needs two ports."""

    foreign_names: ClassVar[Mapping[str, str]] = {
        "lr": "rate",
        "lora_r": "lora.rank",
        "lora.r": "lora.rank",
        "accumulate": "ask the adapter",
    }

    model: Name
    rate: float = 1.0
    size: int | float = 1
    lora: LoraConfig | None = None
    prompt: Template = "{prompt}"
    path: str = "."
    test: Name | None = None
    """Name of a test."""
    pairs: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _no_fast_model(self) -> Config:
        if self.model == "slow" and self.rate > 1:
            raise ValueError("a slow model has no such rate")
        return self

    def required_ports(self) -> tuple[str, ...]:
        return ("blob_store", "metrics_store")


def workflow(kitchen: Kitchen, config: Config) -> Config:
    return config


def mistakes_of(config: dict[str, Any], **adapters: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        run(workflow, config, adapters=adapters or {p: Store() for p in ("blob_store",)})
    return [m for m in caught.value.mistakes if "no adapter is chosen" not in m]


class Bucket(AdapterOptions):
    bucket: str


def test_one_error_names_every_mistake_of_adapters_and_workflow() -> None:
    assert mistakes_of(
        {"modl": "m", "rate": "fast"},
        blob_store={"use": Store(Bucket), "bukket": "b"},
        hub_clint={"use": "nowhere"},
        completer=5,
    ) == [
        "workflow.modl: workflow has no such key; did you mean 'model'? (from code)",
        "workflow.rate: Input should be a valid number, unable to parse string as a number "
        "(from code)",
        "in code: there is no 'adapters.hub_clint'; did you mean 'hub_client'?",
        "adapters.blob_store.bukket: Store has no such key; did you mean 'bucket'? (from code)",
        ANY,  # no adapter is named 'nowhere'
        "adapters.completer: name the adapter by a string, not a value of type int (from code)",
    ]


def test_a_port_without_an_adapter_is_among_the_mistakes() -> None:
    with pytest.raises(ConfigurationError) as caught:
        run(workflow, {"model": 5}, adapters={"blob_store": Store()})
    assert caught.value.mistakes[0].startswith("workflow.model: ")
    assert caught.value.mistakes[1].startswith("no adapter is chosen for metrics_store;")


def test_the_first_mistake_in_a_kitchen_brings_those_of_all_its_adapters() -> None:
    wrong = {"use": Store(Bucket), "bucket": 5}
    kitchen = Kitchen({"blob_store": wrong, "metrics_store": "nowhere"})
    for ask in (lambda: kitchen.blob_store, lambda: kitchen.bind(["metrics_store"])):
        with pytest.raises(ConfigurationError) as caught:
            ask()
        assert len(caught.value.mistakes) == 2
        assert type(caught.value) is ConfigurationError
    with pytest.raises(ConfigurationError) as caught:
        Kitchen({"blob_store": wrong, "metrcs_store": Store()})
    assert len(caught.value.mistakes) == 3  # and a blob store serves no metrics


def test_mistakes_of_one_class_are_an_error_of_that_class() -> None:
    kitchen = Kitchen({"blob_store": "nowhere", "metrics_store": "nowhere"})
    with pytest.raises(AdapterNotFound) as caught:
        _ = kitchen.blob_store
    assert len(caught.value.mistakes) == 2


def test_an_adapter_that_cannot_be_bound_is_not_tried_twice_for_one_error() -> None:
    tried = []

    class Counted(AdapterOptions):
        @model_validator(mode="after")
        def _count(self) -> Counted:
            tried.append(1)
            raise ValueError("no")

    with pytest.raises(ConfigurationError):
        run(workflow, {"model": "m"}, adapters={"blob_store": Store(Counted), "metrics_store": 5})
    assert len(tried) == 1


def test_an_error_of_many_mistakes_pickles() -> None:
    error = pickle.loads(pickle.dumps(AdapterNotFound("one\nmore", "two")))
    assert str(error) == "2 mistakes in the configuration:\n  - one\n    more\n  - two"
    assert isinstance(error, AdapterNotFound)


def test_of_many_mistakes_a_message_lists_the_first_and_counts_the_others() -> None:
    error = ConfigurationError(*(f"mistake {number}" for number in range(10_000)))
    first, *listed = str(error).splitlines()
    assert first == "10,000 mistakes in the configuration:"
    assert listed == [*(f"  - mistake {n}" for n in range(20)), "  - and 9,980 more"]
    assert len(error.mistakes) == 10_000
    assert "more" not in str(ConfigurationError(*error.mistakes[:20]))


def test_a_required_option_is_listed_before_misspelt_ones() -> None:
    """Of many mistakes a message counts the last ones, and that one shows nowhere else."""

    class Bucketed(AdapterOptions):
        bucket: str

    wrong = {f"nothing{n}": n for n in range(30)}
    kitchen = Kitchen({"blob_store": {"use": Store(Bucketed), **wrong}})
    with pytest.raises(ConfigurationError) as caught:
        _ = kitchen.blob_store
    assert caught.value.mistakes[0].startswith("adapters.blob_store.bucket: is required")
    assert len(caught.value.mistakes) == 31


def test_misspelt_keys_of_a_file_are_listed_up_to_a_limit(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("\n".join(f"[misspelt{number}]" for number in range(100)))
    with pytest.raises(ConfigurationError) as caught:
        Kitchen.load(file, environ={})
    assert len(str(caught.value).splitlines()) == 22
    assert str(caught.value).endswith("and 80 more")


def test_what_a_misspelt_key_hides_is_named_under_the_key_as_written() -> None:
    said = mistakes_of({"model": "slow", "raet": 2, "tset": ""})
    assert said == [
        "workflow.raet: workflow has no such key; did you mean 'rate'? (from code)",
        "workflow.tset: workflow has no such key; did you mean 'test'? (from code)",
        "workflow.tset: is empty; leave it out for its default: Name of a test. (from code)",
    ]
    assert "workflow: a slow model has no such rate (from code)" in mistakes_of(
        {"model": "slow", "raet": 2}
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lr": "x"}, "lr: workflow has no such key; did you mean 'rate'? (from code)"),
        ({"lora_r": 8}, "lora_r: workflow has no such key; did you mean 'lora.rank'? (from code)"),
        ({"LORA-R": 8}, "LORA-R: workflow has no such key; did you mean 'lora.rank'? (from code)"),
        ({"lora": {"r": 8}}, "lora.r: there is no such key; did you mean 'lora.rank'? (from code)"),
        ({"accumulate": 2}, "accumulate: workflow has no such key; ask the adapter (from code)"),
        (
            {"lora": 8},
            "lora: takes a table, such as { rank = 32 }, on the command line "
            "workflow.lora.rank=32 (from code)",
        ),
        (
            {"size": "big"},
            "size: Input should be a valid integer, unable to parse string as an integer, or: "
            "Input should be a valid number, unable to parse string as a number (from code)",
        ),
        (
            {"test": " "},
            "test: is empty; leave it out for its default: Name of a test. (from code)",
        ),
        ({"pairs": "a"}, 'pairs: Input should be a valid tuple; write ["...", "..."] (from code)'),
    ],
)
def test_a_mistake_is_explained_by_what_to_write_instead(
    table: dict[str, Any], message: str
) -> None:
    assert mistakes_of({"model": "m", **table}) == [f"workflow.{message}"]


def test_a_key_of_another_tool_stands_for_ours_where_ours_is_required() -> None:
    class Needy(AdapterOptions):
        foreign_names: ClassVar[Mapping[str, str]] = {"url_of_it": "place"}
        place: int

    said = said_of(Needy, url_of_it="x")
    assert said == (
        "adapters.blob_store.url_of_it: Store has no such key; did you mean 'place'? (from code)"
    )


def test_no_representation_shows_a_secret() -> None:
    class Options(AdapterOptions):
        api_key: SecretStr

    kitchen = Kitchen({"blob_store": {"use": Store(Options), "api_key": SECRET}})
    port = kitchen.blob_store
    shown = f"{kitchen!r} {kitchen.settings!r} {port!r} {port.options!r} {vars(port)!r}"
    assert SECRET not in shown + str(kitchen.describe())


# --- values of any size ---


class Sizes(WorkflowConfig):
    """What a workflow may ask for."""

    count: int = 1
    share: int | Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1
    name: str = ""
    when: int = 0

    @field_validator("when")
    @classmethod
    def _fails(cls, value: int) -> int:
        if value:
            raise ZeroDivisionError("secret")
        return value


@pytest.mark.parametrize("digits", [20, 400, 4300, 5000])
@pytest.mark.parametrize("key", ["count", "share"])
@pytest.mark.parametrize("sign", ["", "-", "+", " "])
def test_a_number_that_is_typed_with_too_many_digits_is_named(
    key: str, digits: int, sign: str
) -> None:
    settings = load(environ={}, arguments=[f"workflow.{key}={sign}{'9' * digits}"])
    with Kitchen(settings=settings) as kitchen, pytest.raises(ConfigurationError) as caught:
        kitchen.configure(Sizes, settings.values["workflow"], ("workflow",))
    assert str(caught.value) == (
        f"workflow.{key}: it is an integer of more than 64 bits (from argument workflow.{key}=)"
    )


def test_a_text_may_be_digits() -> None:
    with Kitchen() as kitchen:
        assert kitchen.configure(Sizes, {"name": "9" * 400}, ("workflow",)).name == "9" * 400


def test_a_table_given_in_code_may_not_hold_itself() -> None:
    table: dict[str, Any] = {}
    table["name"] = table
    with (
        Kitchen() as kitchen,
        pytest.raises(ConfigurationError, match="nested too deeply; the limit is 64"),
    ):
        kitchen.configure(Sizes, table, ("workflow",))


def test_an_error_in_a_validator_is_a_mistake_reported_without_its_text() -> None:
    with Kitchen() as kitchen, pytest.raises(ConfigurationError) as caught:
        kitchen.configure(Sizes, {"when": 1}, ("workflow",))
    assert str(caught.value) == "workflow: Sizes raised ZeroDivisionError"


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        ({1: "noop"}, "in code: there is no 'adapters.1'; there are training_client, "),
        ({"blob_store": {1: 2}}, 'adapters.blob_store: name the adapter: use = "<name>"'),
        ({"blob_store": {"use": "noop", None: 2}}, "adapters.blob_store.None: Keys should be str"),
    ],
)
def test_keys_that_are_not_strings_are_mistakes(adapters: dict[Any, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _ = Kitchen(adapters).blob_store
    assert said in str(caught.value)


def test_a_kitchen_takes_adapters_or_settings() -> None:
    with pytest.raises(TypeError, match="not both"):
        Kitchen({}, settings=in_code({}))
