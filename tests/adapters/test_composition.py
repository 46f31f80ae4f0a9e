"""Adapters inside adapters: how they are configured, shown, and written."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import retrying_training_client
import slow_calls
from commands import Crucible
from crucible_kitchen import (
    AdapterNotFound,
    AdapterOptions,
    AdapterTimeout,
    BindError,
    BlobStore,
    ConfigurationError,
    Datum,
    Kitchen,
    MetricsStore,
    ModelInput,
    NotFound,
    SessionConfig,
    TrainingClient,
    Unavailable,
    hookimpl,
)
from crucible_kitchen.adapters.discovery import Catalog
from crucible_kitchen.adapters.known_packages import by_preference
from crucible_kitchen.testing import bound

import kitchen_noop

Mistake = Callable[..., str]
DOCS = Path(__file__).resolve().parents[2] / "docs"


# --- configured ---

STACK = """
[adapters.blob_store]
use = "counting"

[adapters.blob_store.inner]
use = "counting"
inner = { use = "acme", bucket = "deep", api_key = "hunter22" }
"""


@pytest.fixture
def stack(tmp_path: Path) -> None:
    (tmp_path / "crucible.toml").write_text(STACK)


@pytest.mark.usefixtures("stack")
def test_a_stack_is_shown_as_a_tree_with_every_option_and_where_it_was_set(
    crucible: Crucible,
) -> None:
    outcome = crucible(
        "adapters", "show", "blob_store", "adapters.blob_store.inner.inner.timeout=5"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.out == (
        "blob_store: counting  (crucible-adapter-acme 1.2.3)\n"
        "└── inner: counting  (crucible-adapter-acme 1.2.3)\n"
        "    └── inner: acme  (crucible-adapter-acme 1.2.3)\n"
        '        ├── bucket = "deep"  # crucible.toml\n'
        "        ├── timeout = 5.0  # argument adapters.blob_store.inner.inner.timeout=\n"
        '        ├── api_key = "**********"  # crucible.toml\n'
        "        └── tags = []  # default\n"
        "\n"
        "optional callbacks that it serves: none\n"
        "optional callbacks that it does not: delete, list, read_range, ping, clean\n"
    )


@pytest.mark.usefixtures("stack")
def test_a_secret_from_the_environment_is_shown_to_come_from_there(crucible: Crucible) -> None:
    outcome = crucible(
        "adapters", "show", "blob_store", "adapters.blob_store.inner=acme", ACME_API_KEY="hunter22"
    )
    assert 'api_key = "**********"  # environment variable ACME_API_KEY' in outcome.out
    assert "hunter22" not in outcome.out + outcome.err


def test_adapters_in_a_list_are_numbered(plain_crucible: Crucible, tmp_path: Path) -> None:
    pytest.importorskip("crucible_adapter_compose")
    (tmp_path / "crucible.toml").write_text(
        '[adapters.metrics_store]\nuse = "tee"\n'
        'inner = ["noop", { use = "sql", url = "sqlite:///secret.db" }]\n'
    )
    shown = plain_crucible("adapters", "show", "metrics_store")
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[1].startswith("├── inner.0: noop")
    [sql] = [n for n, line in enumerate(lines) if line.startswith("└── inner.1: sql")]
    assert lines[sql + 1] == '    ├── url = "**********"  # crucible.toml'
    assert '    ├── table = "crucible_metrics"  # default' in lines
    assert lines[-2].startswith("optional callbacks that it serves: record_many, runs")
    assert "secret" not in plain_crucible("config").out


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        (["noop", "nop"], "inner.1: no blob_store adapter is named 'nop'; did you mean 'noop'?"),
        (["noop", {"use": "noop", "sed": 1}], "inner.1.sed: noop has no such key; did you mean"),
        ([{"latency_scale": 1}], 'inner.0: name the adapter: use = "<name>"'),
        ("noop", "inner: Input should be a valid list"),
    ],
)
def test_a_mistake_in_a_list_of_adapters_is_named_with_its_full_path(inner: Any, said: str) -> None:
    class Several:
        class Options(AdapterOptions):
            inner: list[BlobStore]

        @hookimpl
        def around(self, call: Any) -> Any:
            return call()

    kitchen = Kitchen({"blob_store": {"use": Several(), "inner": inner}})
    with pytest.raises(Exception, match=re.escape(f"adapters.blob_store.{said}")):
        _ = kitchen.blob_store


@pytest.mark.usefixtures("stack")
def test_a_mistake_four_levels_down_is_named_with_its_full_path(mistake: Mistake) -> None:
    deep = "adapters.blob_store.inner.inner"
    said = mistake(
        "config", f"{deep}=counting", f"{deep}.inner=counting", f"{deep}.inner.inner=acmee"
    )
    assert f"{deep}.inner.inner: no blob_store adapter is named 'acmee'" in said
    assert "did you mean 'acme'?" in said
    assert f"(from argument {deep}.inner.inner=)" in said


@pytest.mark.usefixtures("stack")
def test_config_shows_the_options_of_a_wrapper_before_what_is_inside(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    pytest.importorskip("crucible_adapter_compose")
    (tmp_path / "crucible.toml").write_text(
        "[adapters.blob_store]\n"
        'use = "retry"\nwait = 1\ninner = { use = "limit", rate = 5, inner = "noop" }\n'
    )
    outcome = plain_crucible("config")
    assert outcome.code == 0, outcome.err
    table = tomllib.loads(outcome.out)["adapters"]["blob_store"]
    assert (table["wait"], table["inner"]["rate"], table["inner"]["inner"]["use"]) == (
        1.0,
        5.0,
        "noop",
    )


def test_config_shows_the_adapters_in_a_list_as_toml_with_their_sources(
    crucible: Crucible, tmp_path: Path
) -> None:
    (tmp_path / "crucible.toml").write_text(TEE)
    outcome = crucible("config", "observe.console=true")
    assert outcome.code == 0, outcome.err
    said = tomllib.loads(outcome.out)
    first, second = said["adapters"]["blob_store"]["inner"]
    assert first["inner"]["api_key"] == "**********"
    assert second["bucket"] == "b"
    assert "timeout = 30.0  # default\n" in outcome.out


TEE = """
[adapters.blob_store]
use = "tee"
[[adapters.blob_store.inner]]
use = "counting"
inner = { use = "acme", bucket = "a", api_key = "hunter22" }
[[adapters.blob_store.inner]]
use = "acme"
bucket = "b"
"""


def test_an_adapter_that_is_inside_itself_is_refused() -> None:
    endless: dict[str, Any] = {"use": "retry"}
    endless["inner"] = endless
    with pytest.raises(
        ConfigurationError,
        match=r"code: adapters\.blob_store\.inner\.inner\..* is nested too deeply",
    ):
        Kitchen({"blob_store": endless}).blob_store.read("a")


def test_an_inner_adapter_of_another_port_is_said_to_be_of_no_use() -> None:
    class Options(AdapterOptions):
        inner: MetricsStore

    wrong = type("Wrong", (), {"Options": Options})()
    with pytest.raises(BindError, match="its inner is a metrics_store, which cannot serve"):
        bound("blob_store", wrong, inner="noop").__enter__()


def test_a_port_without_an_adapter_has_nothing_to_show(mistake: Mistake) -> None:
    assert "no adapter is chosen for hub_client" in mistake("adapters", "show", "hub_client")


def test_settings_beside_the_name_of_an_adapter_are_not_ignored(mistake: Mistake) -> None:
    said = mistake("adapters", "show", "acme", "adapters.blob_store=acme")
    assert "only a port takes" in said
    assert ", as in `crucible adapters show blob_store" in said


def test_showing_a_wrapper_says_what_depends_on_the_adapter_inside(crucible: Crucible) -> None:
    outcome = crucible("adapters", "show", "blob_store.counting")
    rows = [line.split() for line in outcome.out.splitlines()]
    offered = {row[0]: row[1:3] for row in rows if len(row) > 2}
    assert offered["read"][0] == "yes"
    assert offered["read_range"] == ["if", "inner"]
    assert offered["close"][0] == "no"


def test_a_wrapper_of_several_ports_is_shown_once(plain_crucible: Crucible) -> None:
    said = plain_crucible("adapters", "show", "tee").out
    assert said.startswith("blob_store.tee\n")
    assert said.count("Write to several stores, read from the first.") == 1
    assert said.endswith("\nThe same wrapper for other ports: metrics_store.tee\n")
    said = plain_crucible("adapters", "show", "noop").out
    assert "completer.noop\n" in said
    assert "training_client.noop\n" in said


def test_a_wrapper_that_is_not_installed_is_said_to_come_with_compose() -> None:
    with pytest.raises(AdapterNotFound, match="pip install crucible-adapter-compose"):
        Catalog((), ()).find("training_client", "retry")


def test_no_wrapper_is_suggested_to_those_who_have_chosen_nothing() -> None:
    found = ["retry", "noop", "zeta", "sql", "jsonl", "tee"]
    assert by_preference("metrics_store", found) == ["jsonl", "sql", "zeta", "noop", "retry", "tee"]


def test_a_run_says_which_adapters_are_inside(plain_crucible: Crucible) -> None:
    pytest.importorskip("crucible_adapter_compose")
    ports = ("training_client", "dataset_store", "metrics_store")
    outcome = plain_crucible(
        *("run", "workflow.use=supervised", "workflow.model=m", "workflow.dataset=d"),
        *(f"adapters.{port}=noop" for port in ports),
        *("workflow.max_steps=1", "adapters.blob_store=retry"),
        'adapters.blob_store.inner={"use": "tee", "inner": ["noop", "noop"]}',
    )
    assert outcome.code == 0, outcome.err
    assert "  blob_store: retry(tee(noop, noop))\n" in outcome.out


# --- written: the examples of docs/adapters/composition.md ---


class Busy:
    """A training client in front of a noop that fails when it is waited for."""

    class Options(AdapterOptions):
        inner: TrainingClient

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked = 0

    @hookimpl
    def await_(self, opts: Any, future: Any, timeout: float | None) -> Any:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return opts.inner.await_(future, timeout)


def client_over(busy: Busy) -> Any:
    noop = {"use": kitchen_noop.training_client, "latency_scale": 0}
    inner = {"use": busy, "inner": noop}
    return bound("training_client", retrying_training_client, inner=inner, pause=0.0)


def submitted(client: TrainingClient) -> Any:
    arrays = {"target_tokens": np.array([2, 3]), "weights": np.ones(2, np.float32)}
    session = client.start_session(SessionConfig("model"))
    return client.forward_backward(session, [Datum(ModelInput.from_ints([1, 2]), arrays)])


def test_the_guides_retrying_client_waits_again_and_delegates_the_rest() -> None:
    busy = Busy(Unavailable("busy"), Unavailable("busy"))
    with client_over(busy) as client:
        assert client.await_(submitted(client)).loss > 0
        assert busy.asked == 3
        assert client.supports("forward")
        assert client.helper("get_tokenizer")(None).vocab_size > 0


def test_the_guides_retrying_client_gives_up() -> None:
    busy = Busy(*[Unavailable("busy")] * 9)
    with client_over(busy) as client, pytest.raises(Unavailable):
        client.await_(submitted(client))
    assert busy.asked == 4


@pytest.mark.parametrize(
    ("failure", "timeout"), [(NotFound("gone"), None), (AdapterTimeout("still running"), 0.1)]
)
def test_the_guides_retrying_client_passes_on_what_it_cannot_help(
    failure: Exception, timeout: float | None
) -> None:
    busy = Busy(failure)
    with client_over(busy) as client:
        future = submitted(client)
        with pytest.raises(type(failure)):
            client.await_(future, timeout)
    assert busy.asked == 1


def test_the_guides_retrying_client_is_short_and_uses_nothing_private() -> None:
    source = (DOCS / "examples" / "retrying_training_client.py").read_text("utf-8")
    assert len(source.splitlines()) <= 40
    assert not re.search(r"\b_\w|\._", source)
    imported = re.findall(r"^(?:from|import) ([\w.]+)", source, re.MULTILINE)
    assert set(imported) == {"time", "crucible_kitchen"}


def test_the_example_of_around_warns_of_slow_calls(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([1.0, 1.02, 2.0, 2.005])  # of two calls, the second of which is quick
    monkeypatch.setattr(slow_calls, "time", SimpleNamespace(monotonic=lambda: next(times)))
    noop = {"use": "noop", "latency_scale": 0}
    with bound("blob_store", slow_calls, inner=noop, seconds=0.01) as store:
        store.exists("a")
        store.exists("b")
    assert [record.message for record in caplog.records] == ["exists of noop took 0.0 s"]


def test_the_guide_shows_code_that_is_tested() -> None:
    guide = (DOCS / "adapters" / "composition.md").read_text("utf-8")
    examples = ("retrying_training_client", "slow_calls")
    sources = [(DOCS / "examples" / f"{name}.py").read_text("utf-8") for name in examples]
    taken = re.findall(r"<!-- from the example -->\n```python\n(.*?)\n```", guide, re.DOTALL)
    assert len(taken) == 2
    for snippet, source in zip(taken, sources, strict=True):
        assert snippet in source
