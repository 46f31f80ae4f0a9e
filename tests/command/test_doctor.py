"""What `crucible doctor` says of the adapters that are configured."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible
from crucible_kitchen import (
    AdapterOptions,
    BlobStore,
    HubClient,
    Kitchen,
    NotFound,
    Unavailable,
    hookimpl,
)
from crucible_kitchen.cli.doctor import _reach
from crucible_kitchen.settings import Layer, merge

SECRET = "do-not-show-me"


@pytest.fixture
def listening() -> Iterator[int]:
    """A port of this machine with a server that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port of this machine without a server."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # taken, so that no other process can answer there
        yield server.getsockname()[1]


def reported(
    crucible: Crucible, *arguments: str, about: str = "adapters.blob_store"
) -> tuple[int, str]:
    """Return the exit code that goes with a configuration, and the line about its blob store."""
    outcome = crucible("doctor", *arguments, ACME_API_KEY=SECRET)
    assert SECRET not in outcome.out + outcome.err
    assert "Traceback" not in outcome.out + outcome.err
    [line] = [x for x in outcome.out.splitlines() if x.startswith(f"{about} ")]
    return outcome.code, " ".join(line.split())


def test_an_adapter_whose_backend_answers_was_reached(crucible: Crucible, listening: int) -> None:
    _, line = reported(
        crucible, "adapters.blob_store=remote", f"adapters.blob_store.bucket=127.0.0.1:{listening}"
    )
    assert line.startswith("adapters.blob_store ok remote: reached in ")


def test_an_adapter_whose_backend_is_silent_fails_without_its_secret(
    crucible: Crucible, silent: int
) -> None:
    code, line = reported(
        crucible, "adapters.blob_store=remote", f"adapters.blob_store.bucket=127.0.0.1:{silent}"
    )
    assert code == 1
    assert line.startswith("adapters.blob_store FAIL blob_store.remote.ping: 127.0.0.1")
    assert "refused" in line


def test_a_wrapper_reaches_what_it_wraps(crucible: Crucible, listening: int) -> None:
    inner = f'{{"use": "remote", "bucket": "127.0.0.1:{listening}"}}'
    stack = ("adapters.blob_store=counting", f"adapters.blob_store.inner={inner}")
    _, line = reported(crucible, *stack)
    assert line.startswith("adapters.blob_store ok counting: bound, around 1 (from ")
    _, line = reported(crucible, *stack, about="adapters.blob_store.inner")
    assert line.startswith("adapters.blob_store.inner ok remote: reached in ")


def test_of_several_adapters_inside_each_is_reached(
    crucible: Crucible, listening: int, silent: int
) -> None:
    inner = [{"use": "remote", "bucket": f"127.0.0.1:{port}"} for port in (listening, silent)]
    stack = ("adapters.blob_store=tee", f"adapters.blob_store.inner={json.dumps(inner)}")
    for index, said in enumerate(("ok remote: reached in ", "FAIL blob_store.remote.ping: ")):
        code, line = reported(crucible, *stack, about=f"adapters.blob_store.inner.{index}")
        assert line.startswith(f"adapters.blob_store.inner.{index} {said}")
        assert code == 1


class Own:
    """Has a backend itself, in addition to an adapter in its options."""

    class Options(AdapterOptions):
        hub: HubClient

    @hookimpl
    def ping(self) -> None:
        raise Unavailable("my server is down")

    @hookimpl
    def read(self, path: str) -> bytes:
        return b""

    @hookimpl
    def stream(self, path: str) -> list[bytes]:
        return []

    @hookimpl
    def exists(self, path: str) -> bool:
        return False

    @hookimpl
    def write(self, path: str, data: Any) -> None: ...


def test_an_adapter_with_a_backend_is_reached_beside_those_inside_it() -> None:
    kitchen = Kitchen({"blob_store": {"use": Own(), "hub": "noop"}})
    rows = [*_reach(kitchen.settings, kitchen.blob_store, ("adapters", "blob_store"))]
    assert [(what, problem) for what, problem, _ in rows] == [
        ("adapters.blob_store", "problem"),
        ("adapters.blob_store.hub", ""),
    ]


class Models(Own):
    """Knows models by the names that an option gives them."""

    class Options(AdapterOptions):
        models: Mapping[str, str] | None = None

    def __init__(self) -> None:
        self.failure = NotFound("no model 'small'")

    @hookimpl
    def ping(self) -> None:
        raise self.failure


@pytest.mark.parametrize("around", [(), ("inner",)])
def test_options_of_a_replaced_adapter_are_named_where_they_are_missing(
    around: tuple[str, ...],
) -> None:
    """In the doctor's row, and in the error that a program gets; in adapters in adapters, too."""
    low: Any = {"use": "acme", "models": {"small": "s"}}
    high: Any = {"use": Models()}
    if around:
        low, high = {"use": "retry", "max_attempts": 1, "inner": low}, {"inner": high}
    tables = {"my.toml": low, "code": high}
    layers = [Layer(name, {"adapters": {"blob_store": table}}) for name, table in tables.items()]
    kitchen = Kitchen(settings=merge(layers))
    key = ".".join(("adapters", "blob_store", *around, "models", "small"))
    said = f"{key} is set for 'acme' (my.toml), which 'Models' (code) replaced"
    *_, (_, state, detail) = _reach(
        kitchen.settings, kitchen.blob_store, ("adapters", "blob_store")
    )
    assert state == "problem"
    assert f"no model 'small'\n{said}" in detail
    with pytest.raises(NotFound) as caught:
        kitchen.blob_store.ping()
    [note] = caught.value.__notes__  # once, though the error was raised twice
    assert note.startswith(said)


def test_so_are_those_of_an_adapter_in_the_options_of_a_workflow() -> None:
    class Config(AdapterOptions):
        store: BlobStore

    low, high = {"use": "acme", "models": {"small": "s"}}, {"use": Models()}
    tables = {"my.toml": {"store": low}, "code": {"store": high}}
    settings = merge(Layer(name, {"workflow": table}) for name, table in tables.items())
    config = Kitchen(settings=settings).configure(
        Config, settings.values["workflow"], ("workflow",)
    )
    with pytest.raises(NotFound) as caught:
        config.store.ping()
    assert "workflow.store.models.small is set for 'acme'" in caught.value.__notes__[0]


def test_every_mistake_is_a_problem_of_its_own(plain_crucible: Crucible, tmp_path: Path) -> None:
    tables = "".join(f"[nothing{n}]\n" for n in range(30))
    keys = "".join(f"nothing{n} = 1\n" for n in range(30))
    file = f'{tables}[adapters.blob_store]\nuse = "noop"\n{keys}[workflow]\nuse = "none"\n'
    (tmp_path / "crucible.toml").write_text(file)
    found = json.loads(plain_crucible("doctor", "--json").out)
    failed = [check for check in found["checks"] if check["state"] == "FAIL"]
    assert found["problems"] == len(failed) == 30 + 30 + 1
    details = "\n".join(check["detail"] for check in failed)
    assert all(f"nothing{n}'" in details and f".nothing{n}:" in details for n in range(30))


def test_an_adapter_without_a_backend_has_nothing_to_reach(crucible: Crucible) -> None:
    _, line = reported(crucible, "adapters.blob_store=acme")
    assert line.startswith("adapters.blob_store ok acme: bound, has nothing to reach (from ")


def test_a_file_can_be_named_as_for_a_run(crucible: Crucible, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('[adapters]\nblob_store = "acme"\n')
    _, line = reported(crucible, "other.toml")
    assert line.startswith("adapters.blob_store ok acme")


RUN = """
[adapters]
training_client = {{ use = "noop", latency_scale = 0 }}
dataset_store = {dataset_store}
blob_store = {{ use = "fsspec", url = "{runs}" }}
metrics_store = {{ use = "jsonl", path = "metrics" }}
[workflow]
use = "supervised"
model = "any"
dataset = "{dataset}"
{more}
"""


def tried(crucible: Crucible, folder: Path, **changed: str) -> tuple[int, str]:
    """Return the exit code and the output of the doctor for a run."""
    (folder / "train.jsonl").write_text('{"prompt": "1+1=", "completion": "2"}\n' * 3)
    given = {"dataset_store": '"hf-datasets"', "runs": "runs", "dataset": "train.jsonl", "more": ""}
    (folder / "crucible.toml").write_text(RUN.format(**given | changed))
    before = sorted(folder.rglob("*"))
    outcome = crucible("doctor")
    assert sorted(folder.rglob("*")) == before  # nothing is left behind
    return outcome.code, "\n".join(" ".join(line.split()) for line in outcome.out.splitlines())


def test_the_model_the_data_and_a_row_are_tried(plain_crucible: Crucible, tmp_path: Path) -> None:
    code, said = tried(plain_crucible, tmp_path)
    assert code == 0, said
    assert "workflow model ok any" in said
    assert "workflow train rows ok row 0: 6 tokens" in said


def test_a_data_set_that_does_not_exist_is_a_problem(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    code, said = tried(plain_crucible, tmp_path, dataset="typo.jsonl")
    assert code == 1
    assert "workflow FAIL dataset_store.hf-datasets.load_dataset: there is no file" in said


def test_a_place_that_cannot_be_written_is_a_problem(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    code, said = tried(plain_crucible, tmp_path, runs="train.jsonl/runs")
    assert code == 1
    assert "adapters.blob_store FAIL blob_store.fsspec.ping: " in said


@pytest.mark.parametrize("trace", ["train.jsonl/trace.jsonl", ".", "/proc/trace/t.jsonl"])
def test_a_trace_that_cannot_be_written_is_a_problem(
    plain_crucible: Crucible, tmp_path: Path, trace: str
) -> None:
    code, said = tried(plain_crucible, tmp_path, more=f'[observe]\njsonl = "{trace}"')
    assert code == 1
    assert f"observe FAIL observe.jsonl: {trace} cannot be written: " in said


@pytest.mark.parametrize("trace", ["train.jsonl", "new/folder/trace.jsonl"])
def test_a_trace_that_can_be_written_is_tried_and_not_begun(
    plain_crucible: Crucible, tmp_path: Path, trace: str
) -> None:
    code, said = tried(plain_crucible, tmp_path, more=f'[observe]\njsonl = "{trace}"')
    assert code == 0, said
    assert "observe ok jsonl (from " in said
