"""Observers of other packages, chosen by name in [observe]."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible
from crucible_kitchen import AdapterNotFound, ConfigurationError, Kitchen
from crucible_kitchen.adapters import finding
from crucible_kitchen.adapters.discovery import OBSERVERS, Catalog
from crucible_kitchen.settings import in_code

ACME = '''
from typing import Annotated
from crucible_kitchen import Event, FromEnv, ObserverOptions
from pydantic import Field, SecretStr

class Options(ObserverOptions):
    project: str = "p"
    """Where runs are shown."""
    depth: int = Field(default=1, ge=1)
    """How much is shown."""
    key: Annotated[SecretStr | None, FromEnv("ACME_KEY")] = None
    """Key of the account."""

class Acme:
    """Writes what it sees to a file."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, event: Event) -> None:
        if event.name.startswith("workflow."):
            self.write(f"{event.name} {self.options.project} {self.options.depth}")

    def close(self) -> None:
        self.write("closed")

    def write(self, line: str) -> None:
        with open("seen.txt", "a") as file:
            file.write(f"{line}\\n")

def plain():
    return lambda event: None

def broken(options: Options):
    raise OSError("the disk is away")

def odd(options: Options):
    return 3

def failing(options: Options):
    class Failing:
        def __call__(self, event: Event) -> None:
            raise RuntimeError("no")
        def __repr__(self) -> str:
            return "failing"
    return Failing()

def unannotated(options): ...
'''
NAMES = ("acme", "plain", "broken", "odd", "failing", "unannotated")
FILE = """
[adapters]
training_client = { use = "noop", latency_scale = 0 }
dataset_store = "noop"
blob_store = "noop"
metrics_store = "noop"

[workflow]
use = "supervised"
model = "any"
dataset = "rows"
max_steps = 2
run_id = "r"
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder in which the package `acme` is installed, beside a crucible.toml."""
    site = tmp_path / "site"
    about = site / "acme-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "acme.py").write_text(ACME)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    points = "\n".join(f"{name} = acme:{'Acme' if name == 'acme' else name}" for name in NAMES)
    (about / "entry_points.txt").write_text(f"[crucible.observers]\n{points}\n")
    (tmp_path / "crucible.toml").write_text(FILE)
    return site


@pytest.fixture
def acme(plain_crucible: Crucible, site: Path) -> Crucible:
    """The command, in the folder of that crucible.toml."""
    return partial(plain_crucible, PYTHONPATH=str(site))


@pytest.fixture
def loaded(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Kitchen]]:
    """Load a kitchen of that crucible.toml, and switch its observers on."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    made: list[Kitchen] = []

    def load(*arguments: str, profile: str | None = None, **environ: str) -> Kitchen:
        made.append(Kitchen.load(profile=profile, arguments=arguments, environ=environ))
        return made[-1]

    yield load
    for kitchen in made:
        kitchen.close()
    sys.modules.pop("acme", None)


@pytest.fixture
def seen(tmp_path: Path) -> Callable[[], list[str]]:
    """Return what the observer has seen."""
    file = tmp_path / "seen.txt"
    return lambda: file.read_text().splitlines() if file.exists() else []


def test_an_observer_sees_the_run_and_is_closed(acme: Crucible, seen: Any, tmp_path: Path) -> None:
    with (tmp_path / "crucible.toml").open("a") as file:
        file.write('[observe]\nacme = { project = "x", depth = 3 }\n')
    outcome = acme("run")
    assert outcome.code == 0, outcome.err
    assert seen() == [
        "workflow.start x 3",
        "workflow.finishing x 3",
        "workflow.stop x 3",
        "workflow.run x 3",
        "closed",
    ]


@pytest.mark.parametrize(
    ("arguments", "environ", "shown"),
    [
        (["observe.acme=true"], {}, "p 1"),
        (["observe.acme.project=x"], {}, "x 1"),
        ([], {"CRUCIBLE_OBSERVE__ACME": "true"}, "p 1"),
        ([], {"CRUCIBLE_OBSERVE__ACME__PROJECT": "y", "CRUCIBLE_OBSERVE__ACME__DEPTH": "2"}, "y 2"),
        ([], {"CRUCIBLE_PROFILE": "shown"}, "z 1"),
        (["observe.acme=true"], {"CRUCIBLE_PROFILE": "shown"}, "z 1"),
        (["observe.acme=false"], {"CRUCIBLE_PROFILE": "shown"}, None),
        (["observe.acme=false"], {}, None),
    ],
)
def test_every_layer_of_settings_switches_it_on_and_off(
    loaded: Callable[..., Kitchen],
    seen: Any,
    tmp_path: Path,
    arguments: list[str],
    environ: dict[str, str],
    shown: str | None,
) -> None:
    with (tmp_path / "crucible.toml").open("a") as file:
        file.write('[profile.shown.observe]\nacme = { project = "z" }\n')
    loaded(*arguments, **environ).observers.emit("workflow.start", workflow="w", run_id="r")
    assert seen()[:1] == ([] if shown is None else [f"workflow.start {shown}"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "observe.acmee=true",
            "observe.acmee: no observer is named 'acmee'; did you mean 'acme'? installed: acme, ",
        ),
        ("observe.acmee=true", "; built in: console, jsonl, otel (from argument observe.acmee=)"),
        ("observe.acme.depht=2", "observe.acme.depht: observe.acme has no such key; did you mean"),
        (
            "observe.acme.depth=0",
            "observe.acme.depth: Input should be greater than or equal to 1 (from argument",
        ),
        ("observe.acme=5.5", "observe.acme: takes a table of options, or true or false (from"),
        ('observe.acme={"project"', "observe.acme: takes a table of options, or true; it begins"),
        ("observe.plain.depth=1", "observe.plain: plain has no options; write true (from"),
        ("observe.broken=true", "observe.broken: it cannot be started: OSError: the disk is away"),
        ("observe.odd=true", "observe.odd: it is not an observer, which is callable, but 3 (from"),
        ("observe.unannotated=true", "observe.unannotated: the observer 'unannotated' must have"),
        ("observe.consol=true", "observe.consol: observe has no such key; did you mean 'console'?"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_source_before_the_run_begins(
    loaded: Callable[..., Kitchen], setting: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(setting)
    assert message in str(caught.value)


def test_all_mistakes_are_named_at_once(acme: Crucible) -> None:
    outcome = acme("config", "observe.acme.depth=0", "observe.consol=true", "observe.x=true")
    assert outcome.code == 2
    for named in ("observe.acme.depth: ", "observe.consol: ", "observe.x: "):
        assert named in outcome.err


def test_its_options_are_shown_with_their_sources_and_without_secrets(acme: Crucible) -> None:
    outcome = acme("config", "observe.acme.depth=2", "observe.plain=true", ACME_KEY="s3cr3t-key")
    assert outcome.code == 0, outcome.err
    assert "plain = true  # argument observe.plain=" in outcome.out
    assert '\n[observe.acme]\nproject = "p"  # default\ndepth = 2  # argument' in outcome.out
    assert "# environment variable ACME_KEY" in outcome.out
    assert "s3cr3t" not in outcome.out


def test_doctor_names_it(acme: Crucible) -> None:
    outcome = acme("doctor", "observe.acme=true")
    rows = [line.split() for line in outcome.out.splitlines()]
    assert ["observe", "ok", "acme"] in [row[:3] for row in rows]
    assert ["observer", "acme", "ok", "acme", "1.0"] in rows
    assert ["observer", "unannotated", "FAIL"] in [row[:3] for row in rows]


def test_doctor_says_what_cannot_be_started(acme: Crucible) -> None:
    outcome = acme("doctor", "observe.broken=true")
    assert "observe.broken: it cannot be started: OSError: the disk is away" in outcome.out
    assert outcome.code == 1


def test_one_that_fails_is_reported_once_and_never_stops_training(acme: Crucible) -> None:
    outcome = acme("run", "observe.failing=true")
    assert outcome.code == 1
    assert outcome.err.count("observer failing failed") == 1
    assert "r is done, but observers failed: failing" in outcome.err


def test_one_may_be_named_by_its_path(acme: Crucible, tmp_path: Path) -> None:
    with (tmp_path / "crucible.toml").open("a") as file:
        file.write('[observe]\n"acme:plain" = true\n')
    assert acme("run").code == 0


def test_a_known_package_that_is_not_installed_is_suggested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finding, "catalog", lambda group: Catalog((), (), OBSERVERS))
    with pytest.raises(
        AdapterNotFound, match="pip install crucible-observer-wandb; installed: non"
    ):
        Kitchen(settings=in_code({"observe": {"wandb": True}})).observe_as_configured()


def test_a_secret_in_a_mistake_is_not_shown() -> None:
    table = {"observe": {"acme_tracker": {"api_key": "s3cr3t-key"}}}
    with pytest.raises(ConfigurationError) as caught:
        Kitchen(settings=in_code(table)).observe_as_configured()
    assert "s3cr3t" not in str(caught.value)
