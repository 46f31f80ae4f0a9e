"""The table `[plugins]`: which plugins may be loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from commands import Crucible, add_package, clean_environ, path_with
from crucible_kitchen import Kitchen
from crucible_kitchen.adapters.policy import Policy, enforced, mistakes
from crucible_kitchen.errors import AdapterForbidden
from crucible_kitchen.settings import in_code
from crucible_kitchen.workflows import registry

NOTICED = "import pathlib\npathlib.Path(__file__).with_name('was_imported').touch()\n"
GROUPS = ("workflows", "environments", "observers")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A package of every kind of plugin, all called `acme`, which notes that it was imported."""
    folder = tmp_path / "packages"
    folder.mkdir()
    add_package(folder, "acme_plugins", NOTICED, "blob_store.acme")
    points = folder / "acme_plugins-1.0.dist-info" / "entry_points.txt"
    more = "".join(f"[crucible.{group}]\nacme = acme_plugins:it\n" for group in GROUPS)
    points.write_text(points.read_text() + more)
    return folder


@pytest.fixture
def command(plain_crucible: Crucible, packages: Path) -> Crucible:
    return partial(plain_crucible, PYTHONPATH=path_with(packages))


COMMANDS = {
    "run": ("run", "workflow.use=acme"),
    "config": ("config", "adapters.blob_store=acme"),
    "an inner adapter": (
        "config",
        "adapters.blob_store.use=retry",
        "adapters.blob_store.inner=acme",
    ),
    "an environment": ("run", "workflow.use=evaluate", "workflow.environment=acme"),
    "an observer": ("config", "observe.acme=true"),
    "doctor": ("doctor",),
    "init": ("init",),
    "check": ("check", "blob_store.acme"),
    "check of an environment": ("check", "environment.acme"),
    "adapters": ("adapters",),
    "adapters show": ("adapters", "show", "blob_store.acme"),
    "workflows": ("workflows",),
    "workflows show": ("workflows", "show", "acme"),
    "environments": ("environments",),
    "environments show": ("environments", "show", "acme"),
    "observers": ("observers",),
    "observers show": ("observers", "show", "acme"),
    "parity": ("parity", "acme", "noop"),
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_no_command_imports_what_is_denied(
    tmp_path: Path, packages: Path, command: Crucible, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "crucible.toml").write_text('[plugins]\ndeny = ["acme-*"]\n')
    outcome = command(*arguments)
    assert not (packages / "was_imported").exists(), outcome
    assert "Traceback" not in outcome.err


def test_a_check_with_suites_of_the_package_obeys_the_file_that_it_is_given(
    tmp_path: Path, packages: Path, command: Crucible
) -> None:
    points = packages / "acme_plugins-1.0.dist-info" / "entry_points.txt"
    suites = "[crucible.conformance]\nblob_store.acme = acme_plugins\n"
    points.write_text(points.read_text() + suites)
    (tmp_path / "other.toml").write_text('[plugins]\ndeny = ["acme-*"]\n')
    outcome = command("check", "blob_store.acme", "other.toml")
    assert (outcome.code, "plugins.deny of other.toml" in outcome.err) == (2, True), outcome
    assert not (packages / "was_imported").exists()


@pytest.mark.parametrize("table", ['deny = ["acme-*"]', 'allow = ["crucible-*"]'])
@pytest.mark.parametrize("record", ["acme_plugins.py,,", "acme.pth,,"], ids=["wheel", "editable"])
@pytest.mark.parametrize("setting", ["use=acme_plugins:it", "environment=acme_plugins:it"])
def test_a_module_of_a_forbidden_distribution_is_not_imported_by_its_path(
    tmp_path: Path, packages: Path, command: Crucible, table: str, record: str, setting: str
) -> None:
    (packages / "acme_plugins-1.0.dist-info/RECORD").write_text(f"{record}\n")
    (tmp_path / "crucible.toml").write_text(f'[plugins]\n{table}\n[workflow]\nuse = "evaluate"\n')
    outcome = command("run", f"workflow.{setting}")
    assert (outcome.code, "of acme_plugins, may not be loaded" in outcome.err) == (2, True), outcome
    assert not (packages / "was_imported").exists()


def test_a_module_in_the_current_folder_is_no_plugin(
    tmp_path: Path, packages: Path, command: Crucible
) -> None:
    (tmp_path / "crucible.toml").write_text('[plugins]\nallow = ["crucible-*"]\n')
    (tmp_path / "acme_plugins.py").write_text("raise SystemError('mine was imported')")
    assert "mine was imported" in command("run", "workflow.use=acme_plugins:it").err
    assert not (packages / "was_imported").exists()


def test_without_the_table_the_package_would_be_imported(packages: Path, command: Crucible) -> None:
    command("workflows")
    assert (packages / "was_imported").exists()


@pytest.mark.parametrize("name", ["acme-plugins", "Acme_Plugins", "acme*", "blob_store.acme"])
def test_what_is_denied_is_named_with_what_forbids_it_and_where_that_is(
    tmp_path: Path, command: Crucible, name: str
) -> None:
    (tmp_path / "crucible.toml").write_text(f'[plugins]\ndeny = ["other", "{name}"]\n')
    outcome = command("config", "adapters.blob_store=acme")
    assert outcome.code == 2
    assert "blob_store.acme (acme_plugins 1.0) may not be loaded: " in outcome.err
    assert f"plugins.deny of crucible.toml names '{name}'" in outcome.err


def test_where_some_are_allowed_others_are_not(tmp_path: Path, command: Crucible) -> None:
    (tmp_path / "crucible.toml").write_text('[plugins]\nallow = ["crucible-adapter-*"]\n')
    outcome = command("config", "adapters.blob_store=acme", "adapters.metrics_store=noop")
    assert outcome.code == 2
    [line] = [line for line in outcome.err.splitlines() if "may not" in line]
    assert "plugins.allow of crucible.toml does not name acme_plugins or blob_store.acme" in line


def test_what_is_denied_is_denied_even_if_it_is_allowed() -> None:
    policy = Policy(allow=("acme",), deny=("acme-plugins",))
    assert "plugins.deny" in policy.refusal("acme_plugins", "blob_store", "acme")


def test_the_core_needs_no_permission_and_can_be_denied() -> None:
    assert Policy(allow=()).refusal("crucible-kitchen", "", "supervised") == ""
    assert Policy(deny=("supervised",)).refusal("crucible-kitchen", "", "supervised")


@pytest.mark.parametrize(
    ("arguments", "environ", "where"),
    [
        (("plugins.deny=acme-plugins",), {}, "argument plugins.deny="),
        ((), {"CRUCIBLE_PLUGINS__DENY": "x, acme"}, "environment variable CRUCIBLE_PLUGINS__DENY"),
        (("--profile", "strict"), {}, "crucible.toml [profile.strict]"),
    ],
)
def test_every_layer_can_forbid(
    tmp_path: Path,
    command: Crucible,
    arguments: tuple[str, ...],
    environ: dict[str, str],
    where: str,
) -> None:
    (tmp_path / "crucible.toml").write_text('[profile.strict.plugins]\ndeny = ["acme"]\n')
    outcome = command("config", "adapters.blob_store=acme", *arguments, **environ)
    assert f"plugins.deny of {where} names" in outcome.err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('denny = ["acme"]', "there is no 'plugins.denny'; did you mean 'deny'?"),
        ("deny = 5", "plugins.deny must be a list of names"),
        ('allow = [""]', "plugins.allow has an empty name"),
        (
            'deny = ["other[s3]"]',
            "plugins.deny names 'other[s3]'; write the name of a distribution",
        ),
    ],
)
def test_until_a_mistake_in_the_table_is_corrected_nothing_is_loaded(
    tmp_path: Path, packages: Path, command: Crucible, table: str, message: str
) -> None:
    (tmp_path / "crucible.toml").write_text(f"[plugins]\n{table}\n")
    outcome = command("config", "adapters.blob_store=acme")
    assert (outcome.code, message in outcome.err) == (2, True), outcome
    command("doctor")
    assert not (packages / "was_imported").exists()


def test_the_command_config_shows_the_table(tmp_path: Path, command: Crucible) -> None:
    (tmp_path / "crucible.toml").write_text('[plugins]\ndeny = ["acme"]\n')
    assert '[plugins]\ndeny = ["acme"]  # crucible.toml\n' in command("config").out


def test_a_kitchen_obeys_its_settings_in_every_port_and_workflow() -> None:
    settings = in_code({"adapters": {"blob_store": "noop"}, "plugins": {"deny": ["noop"]}})
    with Kitchen(settings=settings) as kitchen, pytest.raises(AdapterForbidden):
        _ = kitchen.blob_store
    settings = in_code({"plugins": {"deny": ["supervised"]}})
    with pytest.raises(AdapterForbidden):
        registry.find("supervised", settings)


def test_the_policy_of_one_kitchen_ends_with_its_own_work() -> None:
    settings = in_code({"adapters": {"blob_store": "noop"}, "plugins": {"deny": ["noop"]}})
    with Kitchen(settings=settings) as strict, Kitchen({"blob_store": "noop"}) as other:
        with pytest.raises(AdapterForbidden):
            _ = strict.blob_store
        assert not other.blob_store.exists("a")


def test_a_kitchen_inside_the_work_of_another_is_bound_by_both() -> None:
    with (
        enforced(Policy(deny=("crucible-adapter-noop",))),
        enforced(Policy()),
        Kitchen({"blob_store": "noop"}) as kitchen,
        pytest.raises(AdapterForbidden),
    ):
        _ = kitchen.blob_store


def test_a_name_alone_may_be_written_without_a_list() -> None:
    assert not list(mistakes("here", {"allow": "crucible-*, acme"}))
    policy = Policy.of({"allow": "crucible-*, acme"}, lambda key: "here")
    assert policy.allow == ("crucible-*", "acme")


def test_a_pattern_that_names_nothing_is_shown_by_the_doctor_with_the_nearest_name(
    tmp_path: Path, command: Crucible
) -> None:
    (tmp_path / "crucible.toml").write_text(
        '[plugins]\ndeny = ["metrics_stor.jsonl", "acme-plugin", "blob_store.acme", "acme-*"]\n'
    )
    outcome = command("doctor")
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    said = "plugins warning plugins.deny of crucible.toml names"
    assert [line for line in lines if line.startswith("plugins ")] == [
        f"{said} 'metrics_stor.jsonl', which no installed plugin is called; "
        "did you mean 'metrics_store.jsonl'?",
        f"{said} 'acme-plugin', which no installed plugin is called; did you mean 'acme-plugins'?",
    ]
    assert lines[-1].endswith("2 warnings")


@pytest.mark.parametrize("pattern", ["noop", "crucible-*", "supervised", "Crucible_Kitchen"])
def test_a_pattern_that_names_a_plugin_is_no_news(pattern: str) -> None:
    plugins = [
        ("crucible-adapter-noop", "blob_store", "noop"),
        ("crucible-kitchen", "", "supervised"),
    ]
    assert not [*Policy(allow=(pattern,), deny=(pattern,)).unmatched(plugins)]


def test_the_doctor_obeys_the_file_that_it_is_given(
    tmp_path: Path, packages: Path, command: Crucible
) -> None:
    (tmp_path / "other.toml").write_text('[plugins]\ndeny = ["acme-*"]\n')
    assert "forbidden" in command("doctor", "other.toml").out
    assert not (packages / "was_imported").exists()


TYPO = """
[plugins]
alow = ["crucible-*"]
[adapters]
blob_store = "noop"
[workflow]
use = "supervised"
[observe]
acme = true
"""


@pytest.mark.parametrize("arguments", [("run",), ("config",), ("run", "--dry-run")])
def test_of_a_typo_in_the_table_nothing_else_follows(
    tmp_path: Path, packages: Path, command: Crucible, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "crucible.toml").write_text(TYPO)
    outcome = command(*arguments)
    assert outcome.code == 2
    said = "error: crucible.toml: there is no 'plugins.alow'; did you mean 'allow'?\n"
    assert outcome.err == said
    assert not (packages / "was_imported").exists()


def test_a_typo_in_the_table_is_one_problem_to_the_doctor(
    tmp_path: Path, packages: Path, command: Crucible
) -> None:
    (tmp_path / "crucible.toml").write_text(TYPO)
    lines = [" ".join(line.split()) for line in command("doctor").out.splitlines()]
    assert lines[2:] == [
        "plugins forbidden nothing is loaded until the table [plugins] is corrected",
        "configuration FAIL crucible.toml: there is no 'plugins.alow'; did you mean 'allow'?",
        "1 problem",
    ]
    assert not (packages / "was_imported").exists()


def test_with_a_typo_in_the_table_settings_are_shown_without_values_that_may_be_secret(
    tmp_path: Path, command: Crucible
) -> None:
    (tmp_path / "crucible.toml").write_text(TYPO.replace('"noop"', '{ use = "noop", key = "s3" }'))
    said = command("config").out
    assert 'use = "noop"' in said
    assert "key = (not shown)" in said


def test_the_list_of_adapters_says_which_are_forbidden(
    tmp_path: Path, packages: Path, command: Crucible
) -> None:
    (tmp_path / "crucible.toml").write_text('[plugins]\ndeny = ["acme-*"]\n')
    said = [" ".join(line.split()) for line in command("adapters").out.splitlines()]
    assert "blob_store acme acme_plugins 1.0 forbidden by [plugins]" in said
    assert sum("forbidden" in line for line in said) == 1
    listed = json.loads(command("adapters", "--json").out)
    reasons = {each["name"]: each["forbidden"] for each in listed if each["port"] == "blob_store"}
    assert reasons["acme"] == "plugins.deny of crucible.toml names 'acme-*'"
    assert reasons["noop"] is None
    assert not (packages / "was_imported").exists()


@pytest.mark.parametrize("name", ["CRUCIBLE_PLUGINS__DENY", "crucible_plugins__deny"])
def test_a_variable_forbids_in_the_list_of_adapters_as_well(command: Crucible, name: str) -> None:
    assert "forbidden by [plugins]" in command("adapters", **{name: "acme-*"}).out


def test_the_table_in_a_pyproject_file_forbids_in_the_list_of_adapters_as_well(
    tmp_path: Path, command: Crucible
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.crucible.plugins]\ndeny = ["acme-*"]\n')
    assert "forbidden by [plugins]" in command("adapters").out


def test_the_list_of_adapters_is_there_where_settings_cannot_be_read(
    tmp_path: Path, command: Crucible
) -> None:
    (tmp_path / "crucible.toml").write_text("[plugins\n")
    outcome = command("adapters")
    assert outcome.code == 0
    assert "acme_plugins" in outcome.out
    assert "warning: what [plugins] forbids is not known: crucible.toml" in outcome.err


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("crucible.toml", '[adapters]\nblob_store = "noop"\n'),
        ("pyproject.toml", '[tool.mypy]\nplugins = ["pydantic.mypy"]\n'),
    ],
)
def test_settings_without_the_table_cost_the_list_of_adapters_no_import(
    tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / file).write_text(text)
    code = (
        "import sys; from crucible_kitchen.cli.app import invoke; invoke(['adapters']); "
        "sys.exit('crucible_kitchen.settings' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean_environ(), check=True)
