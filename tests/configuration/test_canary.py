"""A canary is given wherever a secret can be, and searched for in everything that comes out.

It goes through every command, observer and record, and through every error that can be provoked on
one machine: the servers that adapters talk to answer with what they were sent. A place is an
output, a file or an attribute that is not empty; the number of places searched is printed.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import importlib
import itertools
import json
import pickle
import string
import threading
import traceback
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from commands import Crucible
from crucible_kitchen import PORTS, AdapterOptions, Kitchen, Unavailable, hookimpl
from crucible_kitchen.adapters.discovery import catalog
from crucible_kitchen.cli.app import invoke
from crucible_kitchen.cli.continuation import Continuation
from crucible_kitchen.cli.failures import explain
from crucible_kitchen.observers.console import Console
from crucible_kitchen.observers.jsonl import JsonLines
from crucible_kitchen.testing import suite_of
from crucible_kitchen.workflows import run_in
from pydantic import SecretStr

import kitchen_noop

pytestmark = pytest.mark.slow

CANARY = "c4n4ryXy"
HARD = f"a/{CANARY} @b#?c"
"""A password that no URL should have, and people do have."""


def encodings(text: str) -> Iterator[bytes]:
    """Yield the text in the encodings in which a secret may be shown."""
    yield text.encode()
    yield text.encode("utf-16-le")
    yield text.encode().hex().encode()
    yield "".join(f"%{ord(each):02x}" for each in text).encode()
    yield "".join(f"\\u{ord(each):04x}" for each in text).encode()
    yield "".join(f"\\x{ord(each):02x}" for each in text).encode()


def in_base64(text: str) -> Iterator[bytes]:
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + text.encode())
        yield encoded[-(-before * 8 // 6) : (before + len(text)) * 8 // 6]


CASES_OF_IT = (CANARY, CANARY.lower(), CANARY.upper())
PLAIN = {each.lower() for text in CASES_OF_IT for each in encodings(text)}
CODED = {each for text in CASES_OF_IT for each in in_base64(text)}


def shows(data: bytes) -> bool:
    return any(each in data.lower() for each in PLAIN) or any(each in data for each in CODED)


class Places:
    """Where the canary was searched for."""

    searched = 0
    found: list[str] = []  # noqa: RUF012

    def search(self, where: str, data: bytes | str) -> None:
        """Look for the canary; a place that holds nothing does not count."""
        data = data.encode(errors="surrogateescape") if isinstance(data, str) else data
        if data.strip():
            Places.searched += 1
        if shows(data):
            Places.found.append(where)
        assert not shows(data), (where, data[:2000])

    def search_folder(self, folder: Path, *given: str) -> None:
        """Look at every name and into every file in a folder, but for those that were given."""
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_file() and name not in given:
                self.search(f"the file {name!r}", path.read_bytes())
            if name not in given:
                assert not shows(name.encode()), name


@pytest.fixture
def places() -> Places:
    return Places()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rendered rows are kept where they are searched, too."""
    monkeypatch.setenv("CRUCIBLE_CACHE", str(tmp_path / "cache"))


# --- a server that repeats what it is sent ---


class _Parrot(BaseHTTPRequestHandler):
    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        sent = {"headers": dict(self.headers), "path": self.path, "body": body}
        path = urllib.parse.unquote(self.path)
        basic = self.headers.get("authorization", "")
        said = json.dumps({"error": {"message": f"{sent!r} {path} {basic}", "sent": sent}}).encode()
        self.send_response(next(self.server.codes))  # type: ignore[attr-defined]
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _answer  # noqa: N815

    def log_message(self, *args: object) -> None: ...


@pytest.fixture(scope="module")
def parrot() -> Iterator[str]:
    """The address of a server that refuses everything, and says what it was sent."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Parrot) as server:
        server.codes = itertools.cycle((401, 400, 404, 422))  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# --- commands ---

NOOPS = [
    "workflow.use=supervised",
    "workflow.model=m",
    "workflow.max_steps=1",
    "adapters.training_client=noop",
    "adapters.training_client.latency_scale=0",
]
TABLE = json.dumps({"headers": {"Authorization": f"Bearer {CANARY}"}, "api_key": CANARY})

# By the name of the adapter: of what port it is, and its settings; {at} is the server's address.
SETTINGS: dict[str, list[tuple[str, list[str]]]] = {
    "fsspec": [
        ("blob_store", [f"url=ftp://u:{HARD}@127.0.0.1:1/p"]),
        ("blob_store", [f"url=ftp://u:a@{CANARY}@127.0.0.1:1/p"]),
        ("blob_store", [f"url=s3://AKIA:{CANARY}@bucket/x"]),
        ("blob_store", [f"url=https://h/x?X-Amz-Signature={CANARY}&X-Amz-Credential={CANARY}"]),
        ("blob_store", [f"url=simplecache::http://u:{CANARY}@{{at}}/x"]),
        ("blob_store", ["url=none://x", f'storage_options={{"secret": "{CANARY}"}}']),
    ],
    "openai": [
        ("completer", [f"base_url=http://{CANARY}@{{at}}/v1", f"api_key={CANARY}", "model=m"]),
        ("completer", [f"base_url=http://{{at}}/v1?api-key={CANARY}", f"extra_body={TABLE}"]),
        ("completer", [f"base_url=http://u:{HARD}@{{at}}/v1", f"extra_body.token={CANARY}"]),
    ],
    "sql": [
        ("metrics_store", [f"url=postgresql://u:a@{CANARY}@127.0.0.1:1/db", "timeout=1"]),
        ("metrics_store", [f"url=postgresql://u:{HARD}@127.0.0.1:1/db", "timeout=1"]),
        ("metrics_store", [f"url=mysql://u:{CANARY}@127.0.0.1:1/db"]),
    ],
    "mlflow": [
        ("metrics_store", ["tracking_uri=http://{at}", f"token={CANARY}"]),
        ("metrics_store", ["tracking_uri=http://{at}", "username=u", f"password={HARD}"]),
        ("metrics_store", [f"tracking_uri=http://u:{CANARY}@{{at}}"]),
    ],
    "retry": [
        ("metrics_store", [f'inner={{"use": "nowhere", "url": "https://u:{CANARY}@h"}}']),
        ("metrics_store", ["inner=noop", f"inner.password={CANARY}"]),
    ],
    "hf-datasets": [("dataset_store", [f"token={CANARY}"])],
    "noop": [("completer", [f"api_key={CANARY}"])],
}
CASES = [
    pytest.param(name, port, settings, id=f"{name}-{number}")
    for name, cases in SETTINGS.items()
    for number, (port, settings) in enumerate(cases)
]
URLS = [f"https://u:{CANARY}@h/r.jsonl", f"https://u:{HARD}@h/r.jsonl", f"https://{CANARY}@h/r"]


@pytest.fixture
def crucible_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    places: Places,
) -> Callable[..., int]:
    """The command in this process, in an empty folder; what it leaves is searched."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                code = invoke(arguments)
            except Exception as error:
                code = explain(error)
        out, err = capsys.readouterr()
        places.search(f"the output of {arguments}", out)
        places.search(f"the errors of {arguments}", err)
        places.search_folder(tmp_path, "crucible.toml", "echo.py")
        return code

    return run


@pytest.mark.parametrize(("name", "port", "settings"), CASES)
def test_no_command_shows_what_an_adapter_is_given(
    name: str, port: str, settings: list[str], parrot: str, crucible_here: Callable[..., int]
) -> None:
    if name not in {entry.name for entry in catalog().entries}:
        pytest.skip(f"{name} is not installed")
    given = [f"adapters.{port}.{each.replace('{at}', parrot)}" for each in settings]
    others = [f"adapters.{each}=noop" for each in PORTS if f"adapters.{each}=noop" not in NOOPS]
    dataset = f"workflow.dataset={URLS[0]}"
    all_of_it = [*NOOPS, *others, f"adapters.{port}={name}", *given, dataset]
    crucible_here("config", *all_of_it)
    crucible_here("adapters", "show", port, *all_of_it)
    crucible_here("doctor", *all_of_it)
    crucible_here("run", "--trace", "t.jsonl", *all_of_it, "observe.console=true")
    crucible_here("clean", "--dry-run", *all_of_it)


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("store", ["noop", "hf-datasets"])
def test_no_command_shows_the_secret_of_a_data_set(
    url: str, store: str, tmp_path: Path, crucible_here: Callable[..., int]
) -> None:
    (tmp_path / "crucible.toml").write_text(
        f'[workflow]\ndataset = "{url}"\n'
        '[adapters]\nblob_store = { use = "fsspec", url = "runs" }\n'
        f'dataset_store = "{store}"\n'
        'metrics_store = { use = "jsonl", path = "runs/metrics" }\n'
    )
    crucible_here("config", *NOOPS)
    crucible_here("doctor", *NOOPS)
    done = crucible_here("run", "--trace", "t.jsonl", *NOOPS, "workflow.run_id=r")
    assert (done == 0) == (store == "noop")
    if store == "noop":
        record = json.loads((tmp_path / "runs/r/run.json").read_text())
        assert "**********" in record["config"]["dataset"]
        assert "**********" in (tmp_path / "t.jsonl").read_text()
        assert crucible_here("trace", "t.jsonl") == 0
        crucible_here("run", *NOOPS, "workflow.run_id=r", "workflow.seed=7")  # refused
        crucible_here("clean", "--dry-run", *NOOPS)


ECHO = """
from typing import Any
from crucible_kitchen import Unavailable, WorkflowConfig

class Config(WorkflowConfig):
    how: str
    headers: dict[str, Any] = {}
    url: str = ""

def echo(kitchen, config: Config):
    kitchen.observers.emit("workflow.start", workflow="echo", run_id="r", resumed_at=3)
    kitchen.observers.emit("training.checkpoint", run_id="r", step=3)
    secret = config.headers["x-api-key"]
    try:
        {}[secret]
    except KeyError as error:
        error.add_note(f"with {config}")
        if config.how == "bug":
            raise
        if config.how == "adapter":
            raise Unavailable(f"no {config!r}", details={"secret": secret}) from error
        raise RuntimeError(config.model_dump(), config.url)
"""


@pytest.mark.parametrize("how", ["bug", "adapter", "other"])
@pytest.mark.parametrize("given", ["whole", "part"])
def test_no_error_of_a_workflow_shows_what_it_is_given(
    how: str, given: str, tmp_path: Path, crucible_here: Callable[..., int]
) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    headers = json.dumps({"x-api-key": HARD, "Authorization": f"Bearer {CANARY}"})
    said = [f"headers={headers}"] if given == "whole" else [f"headers.x-api-key={CANARY}"]
    config = [f"workflow.{each}" for each in (*said, f"url=https://u:{HARD}@h", f"how={how}")]
    assert crucible_here("run", "workflow.use=echo.py:echo", *config) == 1
    crucible_here("config", "workflow.use=echo.py:echo", *config)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("workflow.headers.token=abc", "workflow.headers.token=**********"),
        ('workflow.headers={"pwd": "abc"}', 'workflow.headers={"pwd": "**********"}'),
        ("workflow.dataset=ftp://u:a b@h/x", "workflow.dataset=ftp://**********@h/x"),
        ('workflow.headers={"n":  1}', 'workflow.headers={"n":  1}'),
        ("my run.toml", "my run.toml"),
    ],
)
def test_the_command_that_continues_a_run_masks_secrets_too_short_to_be_known(
    given: str, said: str
) -> None:
    assert Continuation(Kitchen({}), [given], None, "r", 1).masked(given) == said


MISTAKES = [
    [f"https://u:{CANARY}@h/crucible.toml"],
    [f"adapters.blob_store=https://u:{CANARY}@h"],
    [f"workflow.use=https://u:{CANARY}@h"],
    [f"observe.jsonl=https://u:{CANARY}@h\0"],
    [f"https://u:{CANARY}@h=1"],
]


@pytest.mark.parametrize("command", ["config", "run", "doctor", "clean"])
@pytest.mark.parametrize("arguments", MISTAKES, ids=range(len(MISTAKES)))
def test_no_message_about_a_mistake_shows_the_secret(
    command: str, arguments: list[str], crucible_here: Callable[..., int]
) -> None:
    crucible_here(command, *arguments)


def test_no_command_shows_what_the_environment_gives(
    crucible_here: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://u:{CANARY}@127.0.0.1:1/v1")
    assert crucible_here("init", "made.toml") == 0
    assert crucible_here("adapters") == 0
    for entry in catalog().entries:
        crucible_here("adapters", "show", f"{entry.port}.{entry.name}")
    crucible_here("config", "adapters.completer=openai", "adapters.dataset_store=hf-datasets")
    crucible_here("new", "adapter", "blob_store", "mine")
    crucible_here("--version")
    crucible_here("--help")


@pytest.mark.parametrize("form", [["--json"], ["--verbose"]])
def test_no_report_card_shows_what_the_adapter_is_given(
    form: list[str], monkeypatch: pytest.MonkeyPatch, crucible_here: Callable[..., int]
) -> None:
    only = [name for name in dir(suite_of("metrics_store")) if name.startswith("test_")][:1]
    suites = importlib.import_module("crucible_kitchen.testing.check")
    monkeypatch.setattr(suites, "check", functools.partial(suites.check, only=only))
    options = [f"url=postgresql://u:{HARD}@127.0.0.1:1/db", "timeout=1"]
    assert crucible_here("check", "metrics_store.sql", *options, *form) != 0


@pytest.mark.parametrize("dataset", URLS[:2])
def test_no_process_shows_it_either(
    dataset: str, plain_crucible: Crucible, tmp_path: Path, places: Places
) -> None:
    """What libraries log by themselves reaches a terminal only outside of pytest."""
    blobs = ["adapters.blob_store=fsspec", f"adapters.blob_store.url=ftp://u:{HARD}@127.0.0.1:1/p"]
    given = [*NOOPS, "adapters.dataset_store=noop", "adapters.metrics_store=noop", *blobs]
    outcome = plain_crucible("run", "--trace", "t.jsonl", *given, f"workflow.dataset={dataset}")
    assert outcome.code != 0
    places.search("the output of the process", outcome.out)
    places.search("the errors of the process", outcome.err)
    places.search_folder(tmp_path)


STRAY = """
import logging, threading, warnings
from crucible_kitchen import CrucibleWarning, Kitchen, WorkflowConfig

class Config(WorkflowConfig):
    password: str

class Late:
    def __del__(self):
        raise ValueError(self.said)

def fail(said):
    raise ValueError(said)

def work(kitchen: Kitchen, config: Config) -> None:
    said = f"\\x1b[2Jstray {config.password}"
    warnings.warn(said)
    warnings.warn(said, CrucibleWarning)
    logging.getLogger("library").warning("%s", said)
    try:
        fail(said)
    except ValueError:
        logging.getLogger("library").exception("failed")
    thread = threading.Thread(target=fail, args=[said])
    thread.start()
    thread.join()
    late = Late()
    late.said = said
    del late
    raise SystemExit(said)
"""


def test_what_python_prints_by_itself_is_masked_and_printable(
    plain_crucible: Crucible, tmp_path: Path, places: Places
) -> None:
    """Warnings, log records, and errors of threads and destructors, where a secret is known."""
    (tmp_path / "stray.py").write_text(STRAY)
    outcome = plain_crucible("run", "workflow.use=stray.py:work", f"workflow.password={CANARY}")
    assert outcome.code == 1
    assert outcome.err.count("\\x1b[2Jstray") >= 7
    assert "\x1b" not in outcome.err
    places.search("what Python printed", outcome.err)


# --- errors, observers and records ---

FORMS: list[Callable[[str], str]] = [
    str,
    repr,
    json.dumps,
    lambda s: json.dumps({"x": [repr(s)]}),
    lambda s: urllib.parse.quote(s, safe=""),
    lambda s: urllib.parse.quote_plus(s).lower(),
    lambda s: base64.b64encode(s.encode()).decode(),
    lambda s: base64.urlsafe_b64encode(f"me:{s}".encode()).decode(),
    lambda s: repr(s.encode()),
    lambda s: str(KeyError(s)),
    lambda s: f"https://me:{s}@host/x",
    lambda s: f"Authorization: Bearer {s}",
    lambda s: s.encode().hex(),
    str.upper,
]


class Leaking(AdapterOptions):
    inner: Any = None
    key: SecretStr = SecretStr(HARD)
    url: str = f"https://u:{HARD}@h"
    headers: dict[str, str] = {"x-api-key": HARD}  # noqa: RUF012


def leaking(port: str, callback: str, form: Callable[[str], str]) -> Any:
    """Return an adapter around the noop that puts the secret into the errors of one callback."""
    made = ModuleType("leaking")

    class Options(Leaking):
        inner: PORTS[port]  # type: ignore[valid-type]

    @hookimpl
    def around(opts: Options, call: Any) -> Any:
        if call.name != callback:
            return call()
        said = form(opts.key.get_secret_value())
        try:
            raise KeyError(said)
        except KeyError as error:
            error.add_note(said)
            details = {said: [said, opts.headers, opts, opts.key], "url": opts.url}
            raised = Unavailable(said, details=details)
            raised.add_note(said)
            raise raised from error

    vars(made).update(Options=Options, around=around)
    return {"use": made, "inner": {"use": "noop", "latency_scale": 0}}


CALLS = [
    ("training_client", "start_session"),
    ("training_client", "forward_backward"),
    ("training_client", "optim_step"),
    ("training_client", "save_checkpoint_async"),
    ("dataset_store", "load_dataset"),
    ("blob_store", "write"),
    ("blob_store", "read"),
    ("metrics_store", "record_many"),
    ("metrics_store", "flush"),
    ("completer", "complete_batch"),
]
CONFIG = {
    "model": "any",
    "dataset": f"https://u:{HARD}@h/rows",
    "test_dataset": "rows",
    "test_split": "test",
    "test_size": 2,
    "batch_size": 4,
    "max_steps": 2,
    "save_every": 1,
    "exact_match": True,
    "run_id": "r",
}


@contextlib.contextmanager
def exported(places: Places) -> Iterator[list[Any]]:
    """Yield an OpenTelemetry observer and search what it exports; none if it is not installed."""
    try:
        from crucible_kitchen.observers.otel import OpenTelemetry
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    except ImportError:
        yield []
        return
    exporter, provider, reader = InMemorySpanExporter(), TracerProvider(), InMemoryMetricReader()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield [OpenTelemetry(provider, MeterProvider([reader]))]
    for span in exporter.get_finished_spans():
        places.search(f"the span {span.name}", span.to_json())
    places.search("the metrics", str(reader.get_metrics_data()))


@pytest.mark.parametrize(
    ("port", "callback", "forms"),
    [(*call, FORMS[number % 7 :: 7]) for number, call in enumerate(CALLS)],
    ids=[".".join(call) for call in CALLS],
)
def test_no_observer_record_or_error_of_a_run_shows_it(
    port: str,
    callback: str,
    forms: list[Callable[[str], str]],
    tmp_path: Path,
    places: Places,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = 0
    for number, form in enumerate(forms):
        noops = {name: {**t, "latency_scale": 0} for name, t in kitchen_noop.ADAPTERS.items()}
        kitchen = Kitchen({**noops, port: leaking(port, callback, form)})
        kitchen.conceal({"key": HARD})
        trace = JsonLines(tmp_path / f"{number}.jsonl")
        with exported(places) as tracers:
            for observer in (Console(), trace, *tracers):
                kitchen.observe(observer)
            try:
                run_in(kitchen, "supervised", CONFIG)
            except Exception as error:
                failed += 1
                search_error(places, error)
        trace.close()
        with contextlib.suppress(Exception):
            places.search("the record", kitchen.blob_store.read("r/run.json"))
        places.search("what is described", repr(kitchen.describe()))
        opts = kitchen.port(PORTS[port]).options
        for look in (repr, str, type(opts).model_dump, type(opts).model_dump_json):
            places.search("a look at the options", str(look(opts)))
    places.search("the console", capsys.readouterr().err)
    places.search_folder(tmp_path)
    assert failed == len(forms)


def search_error(places: Places, error: BaseException) -> None:
    places.search("the traceback", "".join(traceback.format_exception(error)))
    chain: list[BaseException] = []
    here: BaseException | None = error
    while here is not None and here not in chain:
        chain.append(here)
        here = here.__cause__ or here.__context__
    for each in chain:
        places.search("an error", f"{each} {each!r} {each.args!r}")
        places.search("the notes", repr(getattr(each, "__notes__", "")))
        places.search("what it carries", repr(vars(each)) if vars(each) else "")
    places.search("a pickled error", pickle.dumps(error))


def test_the_canary_is_found_nowhere(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints the number of places; the tests above name those where it is."""
    if request.session.testsfailed == 0 and Places.searched < 500:
        pytest.skip("not all of the tests above were run")
    with capsys.disabled():
        print(f"\nthe canary was found in {len(Places.found)} of {Places.searched} places")
    assert Places.found == []


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_the_search_finds_the_canary_in_every_form(form: Callable[[str], str]) -> None:
    assert shows(form(HARD).encode())
    assert not shows(string.printable.encode())
