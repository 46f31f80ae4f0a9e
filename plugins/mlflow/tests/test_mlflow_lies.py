"""A server that is no MLflow, or lies: nothing hangs, and no row hides another."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import crucible_adapter_mlflow.metrics_store as mlflow
import pytest
from crucible_kitchen import (
    AdapterError,
    AdapterTimeout,
    CrucibleWarning,
    Kitchen,
    MetricsStore,
    RateLimited,
    Unavailable,
)

Answer = bytes | Callable[[http.server.BaseHTTPRequestHandler, str], None]


class Liar(http.server.ThreadingHTTPServer):
    """Answers each path of MLflow's API with what a test says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.answers: dict[str, Answer] = {
            "experiments/get-by-name": said({"experiment": {"experiment_id": "1"}}),
            "runs/search": said({"runs": [RUN]}),
            "metrics/get-history": said({"metrics": [row(1), row(2)]}),
        }
        self.status = 200
        self.headers: dict[str, str] = {}

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is what these tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Liar

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")
        answer = self.server.answers[path]
        if callable(answer):
            answer(self, self.path)
            return
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


def said(answer: Any) -> bytes:
    return json.dumps(answer).encode()


def row(step: Any, **fields: Any) -> dict[str, Any]:
    return {"key": "nll", "value": 1.0, "timestamp": 1_700_000_000_000 + 1, "step": step, **fields}


RUN: dict[str, Any] = {
    "info": {"run_id": "abc", "status": "RUNNING"},
    "data": {"tags": [{"key": "crucible.run_id", "value": "run"}], "metrics": [{"key": "nll"}]},
}


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar() as liar:
        thread = threading.Thread(target=liar.serve_forever, args=(0.01,))
        thread.start()
        yield liar
        liar.shutdown()
        thread.join()


@pytest.fixture
def store(liar: Liar) -> Iterator[MetricsStore]:
    options = {"use": mlflow, "tracking_uri": liar.address, "timeout": 2, "max_answer_bytes": 2**20}
    with Kitchen(adapters={"metrics_store": options}) as kitchen:
        yield kitchen.metrics_store


NO_ROWS: dict[str, Any] = {
    "nothing": None,
    "a list": [1],
    "no key": {"value": 1.0, "timestamp": 1, "step": 1},
    "no value": {"key": "nll", "timestamp": 1, "step": 1},
    "no time": {"key": "nll", "value": 1.0, "step": 1},
    "a key that is a list": row(9, key=[1]),
    "a value that is text": row(9, value="abc"),
    "a value that is true": row(9, value=True),
    "a value that is a list": row(9, value=[1]),
    "a value of 400 digits": row(9, value=10**400),
    "a step that is a float": row(1.5),
    "a step that is a list": row([1]),
    "a step that is true": row(True),
    "a step that is text": row("abc"),
    "a step beyond 64 bits": row(2**63),
    "a step of 400 digits": row(10**400),
    "a time that is a float": row(9, timestamp=1.5),
    "a time before time": row(9, timestamp=-1),
    "a time after the year 9999": row(9, timestamp=10**15),
    "a time of 400 digits": row(9, timestamp=10**400),
}


@pytest.mark.parametrize("foreign", NO_ROWS.values(), ids=list(NO_ROWS))
def test_a_row_that_is_not_a_metric_is_left_out_and_counted(
    liar: Liar, store: MetricsStore, foreign: Any
) -> None:
    liar.answers["metrics/get-history"] = said({"metrics": [row(1), foreign, row(2), foreign]})
    with pytest.warns(CrucibleWarning, match="2 rows are not a metric of the run 'run'") as warned:
        assert [entry.step for entry in store.read("run")] == [1, 2]
    assert len(warned) == 1


def test_numbers_may_be_texts_as_protocol_buffers_write_them(
    liar: Liar, store: MetricsStore
) -> None:
    written = row("7", timestamp="1700000000000", value="NaN")
    liar.answers["metrics/get-history"] = said({"metrics": [written]})
    [entry] = store.read("run")
    assert (entry.step, repr(entry.value)) == (7, "nan")


@pytest.mark.parametrize(
    "foreign",
    [
        None,
        1,
        [],
        {},
        {"info": None},
        {"info": {"run_id": 7}, "data": RUN["data"]},
        {"info": RUN["info"], "data": None},
        {"info": RUN["info"], "data": {"tags": 5}},
        {"info": RUN["info"], "data": {"tags": [None, {"key": 1}, {"key": "x"}]}},
    ],
    ids=str,
)
def test_a_run_that_is_none_of_ours_does_not_hide_others(
    liar: Liar, store: MetricsStore, foreign: Any
) -> None:
    liar.answers["runs/search"] = said({"runs": [foreign, RUN]})
    assert list(store.runs()) == ["run"]
    assert len(store.read("run")) == 2


@pytest.mark.parametrize("clock", ["abc", "9" * 400, "9" * 5000, "-5", ""])
def test_a_clock_that_was_changed_does_not_lose_a_run(
    liar: Liar, store: MetricsStore, clock: str
) -> None:
    tags = [*RUN["data"]["tags"], {"key": "crucible.last_timestamp", "value": clock}]
    liar.answers["runs/search"] = said({"runs": [{**RUN, "data": {**RUN["data"], "tags": tags}}]})
    store.record("run", "nll", 1.0)  # held here
    assert len(store.read("run")) == 3
    liar.answers["runs/log-batch"] = liar.answers["runs/update"] = b"{}"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"<html>a proxy's page</html>",
        b"[]",
        b"5",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"experiment": null}',
        b'{"experiment": {}}',
        b'{"experiment": [1]}',
        b'{"experiment": {"experiment_id": ' + b"1" * 5000 + b"}}",
    ],
    ids=lambda body: repr(body[:30]),
)
@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_what_is_not_an_answer_of_mlflow_is_reported(
    liar: Liar, store: MetricsStore, nonsense: bytes, status: int
) -> None:
    liar.status = status
    liar.answers["experiments/get-by-name"] = nonsense
    for call in (store.ping, store.runs, lambda: store.read("run")):
        with pytest.raises(Unavailable, match=liar.address):
            call()


@pytest.mark.parametrize("path", ["runs/search", "metrics/get-history"])
@pytest.mark.parametrize("page", [{"runs": 5, "metrics": 5}, {"runs": None, "metrics": None}])
def test_a_page_that_is_not_a_list_is_reported(
    liar: Liar, store: MetricsStore, path: str, page: Any
) -> None:
    liar.answers[path] = said(page)
    with pytest.raises(Unavailable, match=f"{path}, did not answer as MLflow"):
        store.read("run")


@pytest.mark.parametrize("path", ["runs/search", "metrics/get-history"])
@pytest.mark.parametrize(
    ("token", "most"), [(lambda n: "same", 2), (lambda n: str(n), 20), (lambda n: [n], 20)]
)
def test_pages_that_never_end_are_given_up(
    liar: Liar,
    store: MetricsStore,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    token: Callable[[int], Any],
    most: int,
) -> None:
    from crucible_adapter_mlflow import experiment

    monkeypatch.setattr(experiment, "_MOST_PAGES", 20)
    asked = iter(range(10**6))

    def page(handler: http.server.BaseHTTPRequestHandler, _: str) -> None:
        body = said({"runs": [RUN], "metrics": [], "next_page_token": token(next(asked))})
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    liar.answers[path] = page
    with pytest.raises(AdapterError, match=r"never sends the last page"):
        store.read("run")
    assert next(asked) == most


def _chunked(handler: http.server.BaseHTTPRequestHandler, pieces: Iterator[bytes]) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for piece in pieces:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))


def test_an_answer_without_end_is_given_up_by_its_size(liar: Liar, store: MetricsStore) -> None:
    def endless(handler: http.server.BaseHTTPRequestHandler, _: str) -> None:
        _chunked(handler, iter(lambda: b" " * 65536, b""))

    liar.answers["experiments/get-by-name"] = endless
    with pytest.raises(Unavailable, match=r"more than 1048576 bytes \(option max_answer_bytes\)"):
        store.ping()


def test_an_answer_of_drops_is_given_up_by_the_clock(liar: Liar, store: MetricsStore) -> None:
    dripping = threading.Event()

    def drops(handler: http.server.BaseHTTPRequestHandler, _: str) -> None:
        _chunked(handler, iter(lambda: b" " if not dripping.wait(0.05) else b"", b""))

    liar.answers["experiments/get-by-name"] = drops
    began = time.monotonic()
    with pytest.raises(AdapterTimeout, match="did not finish its answer"):
        store.ping()
    dripping.set()
    assert time.monotonic() - began < 10


def test_an_answer_that_unpacks_to_more_is_given_up_by_its_size(
    liar: Liar, store: MetricsStore
) -> None:
    liar.headers = {"Content-Encoding": "gzip"}
    liar.answers["experiments/get-by-name"] = gzip.compress(bytes(64 << 20))
    with pytest.raises(Unavailable, match="max_answer_bytes"):
        store.ping()


def test_what_cannot_be_unpacked_is_unavailable(liar: Liar, store: MetricsStore) -> None:
    liar.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(Unavailable, match=liar.address):
        store.ping()


@pytest.mark.parametrize(
    ("said_after", "after"),
    [
        ("7", 7.0),
        ("1e999", None),
        ("nan", None),
        ("-5", None),
        ("9" * 5000, 86_400.0),  # a day, at most
        ("soon", None),
    ],
)
def test_nonsense_in_retry_after_is_ignored(
    liar: Liar, store: MetricsStore, said_after: str, after: float | None
) -> None:
    liar.status, liar.headers = 429, {"Retry-After": said_after}
    with pytest.raises(RateLimited) as caught:
        store.ping()
    assert caught.value.retry_after == after
