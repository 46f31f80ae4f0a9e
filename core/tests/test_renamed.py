"""Options that have a new name: the old one works in every layer, and says what to write."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from crucible_kitchen import (
    AdapterOptions,
    BindError,
    BlobStore,
    ConfigurationError,
    CrucibleWarning,
    Environment,
    EnvironmentOptions,
    FromEnv,
    Frozen,
    Kitchen,
    LocalPath,
    Renamed,
    WorkflowConfig,
    hookimpl,
)
from crucible_kitchen.configuration.chosen import ChosenEnvironment
from crucible_kitchen.settings import Layer, load, merge, moved
from crucible_kitchen.workflows.runs.changes import check_same
from crucible_kitchen.workflows.runs.record import RunRecord
from crucible_kitchen.workflows.standing import Standing
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

AT = ("adapters", "blob_store")


class Options(AdapterOptions):
    folder: Annotated[LocalPath, Renamed("directory"), Renamed("dir")] = Path("blobs")
    region: str = "here"


class Wrapping(AdapterOptions):
    inner: Annotated[BlobStore | None, Renamed("store")] = None
    others: list[BlobStore] = []  # noqa: RUF012
    named: dict[str, BlobStore] = {}  # noqa: RUF012


class Store:
    """A blob store that holds nothing."""

    def __init__(self, options: type[AdapterOptions] = Options) -> None:
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


def of_layers(
    tmp_path: Path,
    file: str = "",
    *,
    profile: str | None = None,
    arguments: tuple[str, ...] = (),
    options: type[AdapterOptions] = Options,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Kitchen:
    """A kitchen whose blob store is set in layers, and named in code."""
    path = tmp_path / "c.toml"
    path.write_text(file)
    environ = {f"CRUCIBLE_ADAPTERS__BLOB_STORE__{k}": v for k, v in variables.items()}
    settings = load(path, profile=profile, arguments=arguments, environ=environ)
    table = settings.values.setdefault("adapters", {}).setdefault("blob_store", {})
    table["use"] = Store(options)
    return Kitchen(settings=settings, environ=environ)


def folder_of(kitchen: Kitchen) -> str:
    options = kitchen.blob_store.options
    assert isinstance(options, Options)
    return str(options.folder)


def warned(kitchen: Kitchen) -> list[str]:
    """Bind the blob store twice; return the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _ = kitchen.blob_store
        kitchen.close()
        _ = kitchen.blob_store
    assert all(issubclass(each.category, CrucibleWarning) for each in caught)
    return [str(each.message) for each in caught]


IN_FILE = '[adapters.blob_store]\ndirectory = "old"\n'
IN_PROFILE = '[profile.p.adapters.blob_store]\ndirectory = "old"\n'


@pytest.mark.parametrize(
    ("layers", "written", "source"),
    [
        ({"file": IN_FILE}, "adapters.blob_store.folder", "c.toml, as 'directory'"),
        (
            {"file": IN_PROFILE, "profile": "p"},
            "adapters.blob_store.folder",
            "c.toml [profile.p], as 'directory'",
        ),
        (
            {"variables": {"DIRECTORY": "old"}},
            "CRUCIBLE_ADAPTERS__BLOB_STORE__FOLDER",
            "environment variable CRUCIBLE_ADAPTERS__BLOB_STORE__DIRECTORY",
        ),
        (
            {"arguments": ("adapters.blob_store.directory=old",)},
            "adapters.blob_store.folder",
            "argument adapters.blob_store.directory=",
        ),
    ],
)
def test_an_old_name_works_in_every_layer_and_one_line_says_what_to_write(
    tmp_path: Path, layers: dict[str, Any], written: str, source: str
) -> None:
    kitchen = of_layers(tmp_path, **layers)
    [said] = warned(kitchen)
    assert folder_of(kitchen) == "old"
    assert said.startswith("adapters.blob_store.directory is now called 'folder'; write ")
    assert f" write {written} (from " in said
    assert kitchen.settings.source_of((*AT, "folder")).endswith(source)
    assert (*AT, "directory") not in kitchen.settings.sources


def test_todays_name_is_used_without_a_word(tmp_path: Path) -> None:
    kitchen = of_layers(tmp_path, '[adapters.blob_store]\nfolder = "new"\n')
    assert warned(kitchen) == []
    assert folder_of(kitchen) == "new"


NEW, OLD = "adapters.blob_store.folder=new", "adapters.blob_store.directory=old"


@pytest.mark.filterwarnings("ignore::crucible_kitchen.CrucibleWarning")
@pytest.mark.parametrize(
    ("file", "variables", "arguments", "expected"),
    [
        ("folder = 'new'", {}, (OLD,), "old"),
        ("directory = 'old'", {}, (NEW,), "new"),
        ("", {"FOLDER": "new"}, (OLD,), "old"),
        ("", {"DIRECTORY": "old"}, (NEW,), "new"),
        ("folder = 'new'", {"DIRECTORY": "old"}, (), "old"),
        ("dir = 'older'", {"DIRECTORY": "old"}, (NEW,), "new"),
        ("dir = 'older'", {}, (OLD,), "old"),
        ("directory = 'old'", {"DIR": "older"}, (), "older"),
    ],
)
def test_the_higher_layer_wins_under_whatever_name(
    tmp_path: Path,
    file: str,
    variables: dict[str, str],
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    file = f"[adapters.blob_store]\n{file}\n"
    kitchen = of_layers(tmp_path, file, arguments=arguments, variables=variables)
    assert folder_of(kitchen) == expected
    source = kitchen.settings.source_of((*AT, "folder"))
    assert source.startswith(("argument", "environment variable"))


def test_both_names_in_one_layer_are_a_mistake_that_names_both_and_every_other(
    tmp_path: Path,
) -> None:
    file = "[adapters.blob_store]\nfolder = 'new'\ndirectory = 'old'\nregin = 'x'\n"
    kitchen = of_layers(tmp_path, file)
    for _ in range(2):
        with pytest.raises(ConfigurationError) as caught:
            _ = kitchen.blob_store
        said = str(caught.value)
        assert "adapters.blob_store.directory: 'directory' is the old name of 'folder'" in said
        assert "c.toml" in said
        assert "did you mean 'region'?" in said


def test_both_names_in_one_layer_are_a_mistake_even_alone(tmp_path: Path) -> None:
    kitchen = of_layers(tmp_path, arguments=(NEW, OLD))
    with pytest.raises(ConfigurationError, match="'directory' is the old name of 'folder'"):
        _ = kitchen.blob_store


def test_an_old_name_in_code() -> None:
    kitchen = Kitchen({"blob_store": {"use": Store(), "directory": "old"}})
    with pytest.warns(CrucibleWarning, match=r"directory is now called 'folder'") as caught:
        assert folder_of(kitchen) == "old"
    assert len(caught) == 1
    with pytest.warns(CrucibleWarning, match=r"Options: 'directory' is now called 'folder'"):
        assert str(Options.model_validate({"directory": "old"}).folder) == "old"
    with pytest.raises(ValidationError, match="directory is the old name of folder"):
        Options.model_validate({"directory": "old", "folder": "new"})


def test_a_wrong_value_is_named_by_todays_name_and_the_place_of_the_old(tmp_path: Path) -> None:
    kitchen = of_layers(tmp_path, "[adapters.blob_store]\ndirectory = 3\n")
    with (
        pytest.warns(CrucibleWarning),
        pytest.raises(ConfigurationError, match=r"blob_store\.folder: .*c\.toml, as 'directory'"),
    ):
        _ = kitchen.blob_store


def test_an_old_name_of_an_inner_adapters_option() -> None:
    """At any depth: in a table, a list and a table of adapters."""
    old = {"use": Store(), "directory": "old"}
    kitchen = Kitchen(
        {"blob_store": {"use": Store(Wrapping), "inner": old, "others": [old], "named": {"a": old}}}
    )
    said = warned(kitchen)
    assert sorted(each.partition(" ")[0] for each in said) == [
        "adapters.blob_store.inner.directory",
        "adapters.blob_store.named.a.directory",
        "adapters.blob_store.others.0.directory",
    ]
    options = kitchen.blob_store.options
    assert isinstance(options, Wrapping)
    assert options.inner is not None
    for port in (options.inner, options.others[0], options.named["a"]):
        assert port.options == Options(folder=Path("old"))
    assert "directory" in old  # what was given is left as it was


@pytest.mark.filterwarnings("ignore::crucible_kitchen.CrucibleWarning")
def test_an_inner_adapter_under_two_names_is_merged_like_one(tmp_path: Path) -> None:
    class Inner(AdapterOptions):
        store: Annotated[BlobStore | None, Renamed("inner_store")] = None

    kitchen = of_layers(
        tmp_path,
        "[adapters.blob_store.inner_store]\nuse = 'noop'\nseed = 1\nfailure_rate = 0.5\n",
        arguments=("adapters.blob_store.store.seed=2",),
        options=Inner,
    )
    options = kitchen.blob_store.options
    assert isinstance(options, Inner)
    assert options.store is not None
    assert options.store.describe() | {"latency_scale": 0} == {
        "use": "noop",
        "seed": 2,
        "failure_rate": 0.5,
        "latency_scale": 0,
    }
    sources = {key: kitchen.settings.source_of((*AT, "store", key)) for key in ("use", "seed")}
    assert sources["use"].endswith("c.toml, as 'inner_store'")
    assert sources["seed"] == "argument adapters.blob_store.store.seed="


def test_settings_of_workflows_and_environments_and_tables_in_them() -> None:
    class Table(Frozen):
        rank: Annotated[int, Renamed("r")] = 8

    class MazeOptions(EnvironmentOptions):
        size: Annotated[int, Renamed("width")] = 3

    class Maze(Environment):
        def __init__(self, options: MazeOptions) -> None: ...

    Maze.__init__.__annotations__["options"] = MazeOptions

    class Config(WorkflowConfig):
        rate: Annotated[float, Renamed("speed")] = 1.0
        table: Table = Table()
        environment: ChosenEnvironment | None = None

    table = {"speed": 2, "table": {"r": 4}, "environment": {"use": Maze, "width": 5}}
    with pytest.warns(CrucibleWarning) as caught:
        config = Kitchen().configure(Config, table, ("workflow",))
    assert config.rate == 2
    assert config.table.rank == 4
    assert config.environment is not None
    assert config.environment.options == MazeOptions(size=5)
    assert sorted(str(each.message).partition(" ")[0] for each in caught) == [
        "workflow.environment.width",
        "workflow.speed",
        "workflow.table.r",
    ]


def test_an_old_name_overrides_the_ecosystems_variable() -> None:
    class FromVariable(AdapterOptions):
        key: Annotated[str, FromEnv("ACME_KEY"), Renamed("token")] = ""

    environ = {"ACME_KEY": "variable"}
    adapters = {"blob_store": {"use": Store(FromVariable), "token": "given"}}
    with pytest.warns(CrucibleWarning):
        options = Kitchen(adapters, environ=environ).blob_store.options
    assert options == FromVariable(key="given")
    with pytest.warns(CrucibleWarning):
        made = FromVariable.model_validate({"token": "given"}, context={"environ": environ})
    assert made.key == "given"


def test_an_old_name_that_is_an_option_itself_is_a_mistake_of_the_adapter() -> None:
    class Wrong(AdapterOptions):
        folder: Annotated[str, Renamed("region")] = ""
        region: str = ""

    kitchen = Kitchen({"blob_store": {"use": Store(Wrong), "folder": "x"}})
    with pytest.raises(BindError, match=r'Renamed\("region"\), which is an option itself'):
        _ = kitchen.blob_store


def test_the_layers_of_an_adapter_that_was_left_do_not_count(tmp_path: Path) -> None:
    """A lower layer names another adapter, whose options have other names."""
    file = tmp_path / "c.toml"
    file.write_text("[adapters.blob_store]\nuse = 'other'\nfolder = 'x'\ndirectory = 'y'\n")
    kitchen = Kitchen.load(
        file, environ={}, adapters={"blob_store": {"use": Store(), "folder": "new"}}
    )
    assert warned(kitchen) == []
    assert folder_of(kitchen) == "new"


def test_a_run_from_before_the_new_name_goes_on() -> None:
    class Config(WorkflowConfig):
        rate: Annotated[float, Renamed("speed")] = 1.0

    state = SimpleNamespace(standing=Standing())
    recorded: dict[str, Any] = {"config": {"speed": 2.0}, "status": "running", "state": state}
    record = RunRecord.model_construct(**recorded)
    check_same("r", record, Config(rate=2.0), extended=False)
    with pytest.raises(ConfigurationError, match=r"workflow\.rate was 2\.0 and is 3\.0"):
        check_same("r", record, Config(rate=3.0), extended=False)


def test_a_run_from_before_a_new_name_inside_a_table_goes_on_without_a_word() -> None:
    class Adapting(Frozen):
        size: Annotated[int, Renamed("rank")] = 1

    class Config(WorkflowConfig):
        lora: Adapting = Adapting()

    state = SimpleNamespace(standing=Standing())
    config = {"lora": {"rank": 2}}
    recorded: dict[str, Any] = {"config": config, "status": "running", "state": state}
    record = RunRecord.model_construct(**recorded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same("r", record, Config(lora=Adapting(size=2)), extended=False)
        with pytest.raises(ConfigurationError, match=r"workflow\.lora was {'size': 2} and is"):
            check_same("r", record, Config(lora=Adapting(size=3)), extended=False)


class InFolder(Frozen):
    kind: Literal["folder"] = "folder"
    path: Annotated[str, Renamed("folder"), Renamed("place")]


class InBucket(Frozen):
    kind: Literal["bucket"] = "bucket"
    folder: str


class InDrawer(Frozen):
    kind: Literal["drawer"] = "drawer"
    name: Annotated[str, Renamed("place")]


class Somewhere(AdapterOptions):
    where: InFolder | InBucket | InDrawer | None = None
    pair: tuple[InFolder, InBucket] | None = None
    many: tuple[InFolder, ...] = ()


def placed(tmp_path: Path, file: str) -> Any:
    kitchen = of_layers(tmp_path, f"[adapters.blob_store]\n{file}\n", options=Somewhere)
    said = warned(kitchen)
    return kitchen.blob_store.options, [text.partition(";")[0] for text in said]


@pytest.mark.parametrize(
    ("where", "found", "said"),
    [
        ('{ kind = "bucket", folder = "x" }', InBucket(folder="x"), []),
        ('{ folder = "x" }', InBucket(folder="x"), []),
        (
            '{ kind = "folder", folder = "x" }',
            InFolder(path="x"),
            ["adapters.blob_store.where.folder is now called 'path'"],
        ),
        (
            '{ kind = "drawer", place = "x" }',
            InDrawer(name="x"),
            ["adapters.blob_store.where.place is now called 'name'"],
        ),
    ],
)
def test_of_a_union_the_member_that_fits_has_the_old_name(
    tmp_path: Path, where: str, found: Any, said: list[str]
) -> None:
    options, warnings_ = placed(tmp_path, f"where = {where}")
    assert (options.where, warnings_) == (found, said)


def test_an_old_name_of_two_members_is_refused_where_both_fit(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"where\.place: 'place' may be the old name of 'name' or"
    ):
        placed(tmp_path, 'where = { place = "x" }')


def test_each_item_of_a_tuple_has_the_names_of_its_own_kind(tmp_path: Path) -> None:
    options, said = placed(tmp_path, 'pair = [{ folder = "x" }, { folder = "y" }]')
    assert options.pair == (InFolder(path="x"), InBucket(folder="y"))
    assert said == ["adapters.blob_store.pair.0.folder is now called 'path'"]
    options, _ = placed(tmp_path, 'many = [{ folder = "x" }, { folder = "y" }]')
    assert options.many == (InFolder(path="x"), InFolder(path="y"))


NUMBERS = st.integers(0, 9)
FLAT = st.dictionaries(st.sampled_from("abc"), NUMBERS, min_size=1)
TABLES = st.fixed_dictionaries({}, optional={"a": NUMBERS, "b": FLAT, "c": FLAT}).filter(bool)


def by_layers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[str, Any]]]:
    """Layers that each set a key by one of its two names."""
    names = st.sampled_from(["old", "new"])
    return st.lists(st.tuples(names, values), min_size=1, max_size=4)


@given(by_layers(NUMBERS) | by_layers(TABLES))
def test_two_names_are_merged_as_one_would_be(layers: list[tuple[str, Any]]) -> None:
    tables = [{"workflow": {name: value}} for name, value in layers]
    settings = merge(Layer(str(level), table) for level, table in enumerate(tables))
    one = merge(
        Layer(str(level), {"workflow": {"new": value}}) for level, (_, value) in enumerate(layers)
    )
    table = settings.values["workflow"]
    if "old" in table and "new" in table:
        old, new = ("workflow", "old"), ("workflow", "new")
        value, _ = moved(settings, old, new, table["old"], table["new"])
        assert value == one.values["workflow"]["new"]
