"""Settings: layers are merged key by key, and each leaf knows where it came from."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import ConfigurationError
from crucible_kitchen.extent import DEEPEST
from crucible_kitchen.settings import SETTABLE, Layer, gather, in_code, load, merge
from hypothesis import given
from hypothesis import strategies as st

PORTS = ("blob_store", "metrics_store")


def test_a_bare_name_is_short_for_a_table() -> None:
    settings = merge([Layer("file", {"adapters": {"blob_store": "acme"}})])
    assert settings.values == {"adapters": {"blob_store": {"use": "acme"}}}
    assert settings.source_of(("adapters", "blob_store", "use")) == "file"


def test_a_higher_layer_that_names_another_adapter_drops_the_options_of_the_lower() -> None:
    low = Layer("low", {"adapters": {"blob_store": {"use": "acme", "bucket": "b"}}})
    high = Layer("high", {"adapters": {"blob_store": "disk"}})
    settings = merge([low, high])
    assert settings.values["adapters"]["blob_store"] == {"use": "disk"}
    assert settings.sources == {
        ("adapters",): "high",
        ("adapters", "blob_store"): "high",
        ("adapters", "blob_store", "use"): "high",
    }


def test_the_rule_holds_for_inner_adapters_too() -> None:
    low = {"use": "retry", "max_attempts": 5, "inner": {"use": "acme", "bucket": "b"}}
    settings = merge(
        [
            Layer("low", {"adapters": {"blob_store": low}}),
            Layer("high", {"adapters": {"blob_store": {"inner": "disk"}}}),
        ]
    )
    assert settings.values["adapters"]["blob_store"] == {
        "use": "retry",
        "max_attempts": 5,
        "inner": {"use": "disk"},
    }


def test_options_above_a_bare_inner_name_are_added_to_it() -> None:
    settings = merge(
        [
            Layer("low", {"adapters": {"blob_store": {"use": "retry", "inner": "acme"}}}),
            Layer("high", {"adapters": {"blob_store": {"inner": {"bucket": "b"}}}}),
        ]
    )
    inner = ("adapters", "blob_store", "inner")
    assert settings.values["adapters"]["blob_store"]["inner"] == {"use": "acme", "bucket": "b"}
    assert settings.source_of((*inner, "use")) == "low"
    assert settings.source_of((*inner, "bucket")) == "high"


def test_options_in_a_layer_below_the_name_are_kept() -> None:
    settings = merge(
        [
            Layer("env", {"adapters": {"blob_store": {"bucket": "b"}}}),
            Layer("cli", {"adapters": {"blob_store": "acme"}}),
        ]
    )
    assert settings.values["adapters"]["blob_store"] == {"use": "acme", "bucket": "b"}


def test_a_list_replaces_a_list() -> None:
    settings = merge(
        [Layer("a", {"workflow": {"x": [1, 2]}}), Layer("b", {"workflow": {"x": [3]}})]
    )
    assert settings.values == {"workflow": {"x": [3]}}


values = st.recursive(
    st.integers() | st.booleans(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
tables = st.fixed_dictionaries(
    {"workflow": st.dictionaries(st.sampled_from("abc"), values, max_size=3)}
)


def value_at(table: Any, key: tuple[str, ...]) -> Any:
    """Return the value at a path, None if a part of it is missing or is not a table."""
    for part in key:
        table = table.get(part) if isinstance(table, dict) else None
    return table


@given(st.lists(tables, min_size=1, max_size=4))
def test_every_leaf_has_the_value_of_the_highest_layer_that_sets_it(
    layers: list[dict[str, Any]],
) -> None:
    named = [Layer(str(index), table) for index, table in enumerate(layers)]
    settings = merge(named)
    for key, value in settings.leaves():
        source = int(settings.source_of(key))
        assert value == {} or value_at(layers[source], key) == value
        # No layer above sets it; if one has something at its place, it is a table without leaves.
        for above in layers[source + 1 :]:
            assert isinstance(value_at(above, key), dict | None)


def test_merging_changes_no_layer() -> None:
    low = {"adapters": {"blob_store": {"use": "acme", "tags": {"a": 1}}}}
    before = repr(low)
    merge([Layer("low", low), Layer("high", {"adapters": {"blob_store": {"tags": {"b": 2}}}})])
    assert repr(low) == before


def test_reserved_variables_set_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[profile.p.workflow]\nx = 1")
    environ = {"CRUCIBLE_CONFIG": str(file), "CRUCIBLE_PROFILE": "p", "CRUCIBLE_CACHE": "cache"}
    assert load(environ=environ).values == {"workflow": {"x": 1}}


def test_json_is_read_and_what_only_begins_like_json_stays_text() -> None:
    arguments = ['workflow.a=["x", 1]', 'workflow.b={"c": 2}', "workflow.p={question}"]
    settings = load(environ={}, arguments=arguments)
    assert settings.values["workflow"] == {"a": ["x", 1], "b": {"c": 2}, "p": "{question}"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_name_and_an_option_are_one_table_in_any_order(order: int) -> None:
    arguments = ["adapters.blob_store=acme", "adapters.blob_store.bucket=b"][::order]
    settings = load(environ={}, arguments=arguments)
    assert settings.values["adapters"]["blob_store"] == {"use": "acme", "bucket": "b"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (['workflow.a=["hunter2"]', "workflow.a.b=2"], "workflow.a is set to a list"),
        (['workflow.a={"b": "hunter2", "c": null}', "workflow.a.c.d=2"], "a.c is set to a value"),
    ],
)
def test_a_value_below_another_is_refused_without_repeating_that(
    arguments: list[str], said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={}, arguments=arguments)
    assert f"{said}, not to a table" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["crucible_config", "crucible_profile", "CRUCIBLE_CONFIG__A"])
def test_a_reserved_variable_in_another_spelling_is_an_error(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"environment variable {name}: there is no"):
        load(environ={name: "x"})


def test_a_variable_may_be_written_in_lower_case() -> None:
    settings = load(environ={"crucible_adapters__blob_store": "acme"})
    assert settings.values == {"adapters": {"blob_store": {"use": "acme"}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tool = 5", r"\[tool\.crucible\] must be a table"),
        ("[tool]\ncrucible = 5", r"\[tool\.crucible\] must be a table"),
        ("[tool.crucible]\nadapter = {}", "there is no 'adapter'; did you mean 'adapters'"),
        ("[tool.crucible]\nprofile = 5", "profile must be a table of profiles"),
    ],
)
def test_a_mistake_in_pyproject_is_one_plain_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        load(environ={})


def test_an_argument_and_the_profile_of_the_call_override_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("profile.a.workflow.x = 1\nprofile.b.workflow.x = 2")
    environ = {"CRUCIBLE_PROFILE": "a", "CRUCIBLE_WORKFLOW__Y": "variable"}
    settings = load(file, profile="b", environ=environ, arguments=["workflow.y=argument"])
    assert settings.values["workflow"] == {"x": 2, "y": "argument"}


def test_a_pyproject_without_our_table_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = 1")
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).files == ()


def test_a_name_too_long_for_a_file_is_one_plain_error() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load("a" * 5000, environ={})


@pytest.mark.parametrize("name", ["crucible.toml", "pyproject.toml"])
def test_a_byte_order_mark_is_not_part_of_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    table = "[tool.crucible.workflow]" if name == "pyproject.toml" else "[workflow]"
    (tmp_path / name).write_text(f'{table}\nprompt = "é"', encoding="utf-8-sig")
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).values == {"workflow": {"prompt": "é"}}


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "is UTF-16; save it as UTF-8"),
        ("utf-16-le", "is UTF-16; save it as UTF-8"),
        ("utf-16-be", "is UTF-16; save it as UTF-8"),
        ("utf-32", "is UTF-32; save it as UTF-8"),
        ("latin-1", "is not UTF-8: byte 0xe9 in line 2; save it as UTF-8"),
        ("cp1252", "is not UTF-8: byte 0xe9 in line 2; save it as UTF-8"),
    ],
)
def test_the_encoding_of_a_file_that_is_not_utf_8_is_named(
    tmp_path: Path, encoding: str, message: str
) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes('[workflow]\nprompt = "é"'.encode(encoding))
    with pytest.raises(ConfigurationError) as caught:
        load(file, environ={})
    assert str(caught.value) == f"{file} {message}"


def test_lines_may_end_as_on_windows_and_texts_of_a_file_stay_as_written(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b"[workflow]\r\na = 'C:\\new'\r\nb = \"x\\n\"\r\n")
    assert load(file, environ={}).values == {"workflow": {"a": r"C:\new", "b": "x\n"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 1000 + "]" * 1000, "a value in it is nested too deeply; the limit is 64 "),
        ("[workflow]\nepochs = " + "9" * 5000, "a number in it is an integer of more than 64 bits"),
    ],
)
def test_what_python_cannot_read_is_one_plain_error(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load(file, environ={})


@pytest.mark.parametrize(
    ("value", "why"),
    [("[" * 100_000, "nested too deeply"), (f"[1{'0' * 5000}]", "of more than 64 bits")],
)
def test_json_beyond_the_limits_is_explained_where_an_adapter_is_needed(
    value: str, why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        load(environ={}, arguments=[f"adapters.blob_store={value}"])


# --- how much settings may be ---


def said_of(**given: Any) -> str:
    """Return what is wrong with settings."""
    with pytest.raises(ConfigurationError) as caught:
        load(**{"environ": {}, **given})
    return str(caught.value)


def nested(depth: int, inside: Any = 1) -> Any:
    for _ in range(depth):
        inside = {"a": inside}
    return inside


DEEP = {
    "table headers": lambda depth: f"[workflow.{'.'.join('a' * (depth - 1))}]",
    "dotted keys": lambda depth: f"workflow.{'.'.join('a' * depth)} = 1",
    "quoted keys": lambda depth: f"workflow . {' . '.join([chr(34) + '.' + chr(34)] * depth)} = 1",
    "inline tables": lambda depth: f"workflow = {'{ a = ' * depth}1{' }' * depth}",
    "lists": lambda depth: f"workflow.a = {'[' * (depth - 1)}{']' * (depth - 1)}",
    "both": lambda depth: f"workflow.a = {'[{ a = ' * (depth // 2)}1{' }]' * (depth // 2)}",
}


@pytest.mark.parametrize("depth", [DEEPEST, 100, 300, 1000, 50_000])
@pytest.mark.parametrize("write", DEEP.values(), ids=DEEP)
def test_a_file_that_is_nested_too_deeply_is_one_line_that_states_the_limit(
    tmp_path: Path, write: Callable[[int], str], depth: int
) -> None:
    file = tmp_path / "a.toml"
    file.write_text(write(depth))
    said = said_of(path=file)
    assert said.startswith(f"{file}: ")
    assert f"is nested too deeply; the limit is {DEEPEST} levels of tables and lists" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("write", DEEP.values(), ids=DEEP)
def test_a_file_may_be_nested_as_deeply_as_the_limit_says(
    tmp_path: Path, write: Callable[[int], str]
) -> None:
    file = tmp_path / "a.toml"
    file.write_text(write(DEEPEST - 2))
    assert load(file, environ={}).values["workflow"]


@pytest.mark.parametrize("quote", ['"', "'", '"""', "'''"])
def test_a_text_or_a_comment_may_have_any_number_of_dots(tmp_path: Path, quote: str) -> None:
    dots = ".".join("ab" * 200)
    file = tmp_path / "a.toml"
    file.write_text(f"# {dots}\nworkflow = {{ x = {quote}{dots}{quote} }} # {dots}\n")
    assert load(file, environ={}).values == {"workflow": {"x": dots}}


@pytest.mark.parametrize("depth", [DEEPEST, 100, 300, 1000, 100_000])
def test_what_is_typed_at_a_shell_may_be_no_deeper(depth: int) -> None:
    lists, tables = "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth
    dots = f"WORKFLOW__{'__'.join('A' * depth)}"
    for said in (
        said_of(arguments=[f"workflow.x={lists}"]),
        said_of(arguments=[f"workflow.x={tables}"]),
        said_of(environ={"CRUCIBLE_WORKFLOW__X": tables}),
        said_of(environ={f"CRUCIBLE_{dots}": "1"}),
        said_of(arguments=[f"workflow.{'.'.join('a' * depth)}=1"]),
    ):
        assert "nested too deeply; the limit is 64 levels" in said
        source = "argument workflow.x=: ", "environment variable CRUCIBLE_WORKFLOW__X: "
        assert said.startswith((*source, "command line: workflow.a.a", "environment: workflow.a.a"))
        assert len(said) < 250


def test_in_code_a_table_that_holds_itself_is_nested_too_deeply() -> None:
    table: dict[str, Any] = {}
    table["inner"] = table
    a_list: list[Any] = []
    a_list.append(a_list)
    for value in (table, {"stores": a_list}, nested(2000), {"stores": ({"x": a_list},)}):
        with pytest.raises(ConfigurationError, match=r"^code: adapters\.blob_store\..* nested too"):
            in_code({"adapters": {"blob_store": value}})


def test_a_value_in_many_places_counts_in_each() -> None:
    table: dict[str, Any] = {}
    for _ in range(DEEPEST - 4):
        table = {"a": table, "b": table}
    with pytest.raises(ConfigurationError, match="has more than 1,000,000 values"):
        in_code({"adapters": {"blob_store": table}})


@pytest.mark.parametrize("digits", [20, 400, 4300, 4301, 5000])
def test_integers_have_64_bits(tmp_path: Path, digits: int) -> None:
    file = tmp_path / "a.toml"
    for number in ("9" * digits, "-" + "9" * digits, "0x" + "f" * digits):
        file.write_text(f"[workflow]\nepochs = {number}")
        assert "is an integer of more than 64 bits" in said_of(path=file)
    for written in (f'{{"a": {"9" * digits}}}', f"[{'9' * digits}]"):
        assert "is an integer of more than 64 bits" in said_of(arguments=[f"workflow.x={written}"])


def test_the_largest_and_the_smallest_integer_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(f"workflow = {{ most = {2**63 - 1}, least = {-(2**63)} }}")
    assert load(file, environ={}).values["workflow"] == {"most": 2**63 - 1, "least": -(2**63)}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\udcff.jsonl", r"is not Unicode text: it has '\udcff' at character 1; "),
        ("ab\ud800", r"is not Unicode text: it has '\ud800' at character 3; "),
        ("a\0b", "has a NUL character"),
    ],
)
def test_texts_are_unicode_without_nul(text: str, why: str) -> None:
    inside = json.dumps({"a": [text]})
    for said in (
        said_of(arguments=[f"workflow.x={text}"]),
        said_of(environ={"CRUCIBLE_WORKFLOW__X": text}),
        said_of(arguments=[f"workflow.x={inside}"]),
        said_of(arguments=[f'workflow.x={{"{text}": 1}}'.replace("\0", "\\u0000")]),
        said_of(arguments=[f"workflow.{text}=1"]),
        said_of(code={"workflow": {"x": text}}),
    ):
        assert why in said


def bind_a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a pipe"),
        (bind_a_socket, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to("/dev/null"), "a device"),
    ],
)
@pytest.mark.parametrize("name", ["a.toml", "crucible.toml", "pyproject.toml"])
def test_what_is_not_a_file_is_not_waited_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Callable[[Path], None],
    kind: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    make(Path(name))
    said = said_of(path=name if name == "a.toml" else None)
    assert said == f"{name} cannot be read: it is {kind}, not a file"


def test_a_pipe_that_a_shell_opened_is_read() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as pipe:
        pipe.write("workflow.x = 1")
    try:
        assert load(f"/dev/fd/{read}", environ={}).values == {"workflow": {"x": 1}}
    finally:
        os.close(read)


def test_a_file_that_is_too_large_for_settings_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    with file.open("wb") as opened:
        opened.truncate(2**40)
    assert said_of(path=file).startswith(f"{file} has more than 1,048,576 bytes")


@pytest.mark.parametrize("name", ["n" * 300 + ".toml", "a\0.toml", "l" * 5000])
def test_a_file_name_that_no_file_can_have_is_one_line(name: str) -> None:
    for said in (said_of(path=name), said_of(environ={"CRUCIBLE_CONFIG": name})):
        assert len(said.splitlines()) == 1
        assert "cannot be read" in said


def test_ten_thousand_keys_are_merged_in_linear_time() -> None:
    """Each key is compared with its equal, not with all others."""
    compared = 0

    class Name(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    table = {"workflow": {Name(f"k{number}"): 1 for number in range(10_000)}}
    settings = merge([Layer("low", table), Layer("high", table)])
    assert len(settings.values["workflow"]) == 10_000
    assert compared < 200_000


def test_every_mistake_in_every_layer_is_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[adaptors]\nblob_store = 'x'\n[profile.p.adapters]\nblobs = 'x'")
    with pytest.raises(ConfigurationError) as caught:
        load(
            file,
            profile="q",
            environ={"CRUCIBLE_WORKFLW__X": "1"},
            arguments=["epochs", "adapters.hub=x"],
            code={"adapters": {"completr": "x"}},
        )
    assert [mistake.partition("; ")[0] for mistake in caught.value.mistakes] == [
        f"{file} [profile.p]: there is no 'adapters.blobs'",
        f"{file}: there is no 'adaptors'",
        f"no [profile.q] in {file}",
        "environment variable CRUCIBLE_WORKFLW__X: there is no setting 'workflw.x'",
        "argument 'epochs': settings are written key=value, such as workflow.epochs=3 or "
        "adapters.training_client=noop",
        "argument adapters.hub=: there is no 'adapters.hub'",
        "in code: there is no 'adapters.completr'",
    ]
    assert str(caught.value).count("\n  - ") == 7


def test_an_unknown_setting_is_answered_with_every_table_that_can_be_set() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(arguments=["xyzzy=3"], environ={})
    assert "did you mean" not in str(caught.value)  # whether the workflow has it is not known here
    assert "if it is one of the workflow, write workflow.xyzzy; settings begin with " in str(
        caught.value
    )
    assert all(f"{table}." in str(caught.value) for table in SETTABLE)


def test_an_unknown_variable_is_answered_with_variables() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(environ={"CRUCIBLE_XYZZY": "3"})
    assert "write CRUCIBLE_WORKFLOW__XYZZY; settings begin with CRUCIBLE_ADAPTERS__, " in str(
        caught.value
    )


@pytest.mark.parametrize("argument", ["profile=q", "profile.q.workflow.epochs=3"])
def test_a_profile_that_is_written_as_a_setting_is_answered_with_the_option(argument: str) -> None:
    with pytest.raises(ConfigurationError, match="a profile is chosen with --profile NAME") as of:
        load(arguments=[argument], environ={})
    assert "workflow." not in str(of.value).partition(";")[2]


def test_a_profile_of_a_file_without_any_is_answered_with_that(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[workflow]\n")
    with pytest.raises(ConfigurationError, match=r"a\.toml, which has no profiles$"):
        load(file, profile="q", environ={})


def test_a_profile_without_a_file_is_answered_with_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"\[profile\.q\]: there is no crucible.toml here"):
        load(profile="q", environ={})


def test_a_misspelt_key_is_read_as_the_nearest_known_key(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[adapter]\nblob_stor = { use = 'x' }\nzzz = 'y'\n[zzz]\n[workflow]\na = 1")
    settings = gather(file, environ={"CRUCIBLE_WORKFLW__B": "2"}, arguments=["worklow.c=3"])
    assert settings.values == {
        "adapters": {"blob_store": {"use": "x"}},
        "workflow": {"a": 1, "b": "2", "c": "3"},
    }
    assert len(settings.mistakes) == 6


def test_a_misspelt_name_never_replaces_the_one_that_is_spelt_right() -> None:
    settings = in_code({"adapters": {"blob_store": "right", "blob_stor": "wrong"}})
    assert settings.values == {"adapters": {"blob_store": {"use": "right"}}}


def test_toml_may_hold_dates_and_empty_tables(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("workflow.day = 2024-01-01\nworkflow.none = {}\n[adapters]\n[profile]")
    settings = load(file, environ={})
    assert settings.values == {"workflow": {"day": date(2024, 1, 1), "none": {}}, "adapters": {}}


def test_a_value_after_a_space_instead_of_an_equals_sign_is_not_repeated() -> None:
    """It may be a secret."""
    with pytest.raises(ConfigurationError) as caught:
        load(environ={}, arguments=["workflow.epochs=3", "adapters.completer.api_key", "hunter22"])
    assert "hunter22" not in str(caught.value)
    assert "the argument after 'adapters.completer.api_key'" in str(caught.value)
