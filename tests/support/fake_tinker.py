"""A server of Tinker's API that computes nothing, on 127.0.0.1, for what a real one does not do on
request: answers of 429 and 5xx, cut connections, a server that disappears, shapes of other SDKs.

It understands every SDK from 0.24 to 0.38: batches come as JSON, or as the SDK's own protobuf, and
so do the results of their passes.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

import numpy as np

Answer: TypeAlias = tuple[int, Any]
"""A status, and what is sent as JSON."""

MODEL = "acme/tiny"
LOGPROB = -1.5
"""Of every token."""


@dataclass
class FakeServer:
    """What it was asked, and what it answers.

    Attributes:
        base_url: where it listens.
        received: the bodies of requests, by route, as they came.
        failing: for a route, an answer instead of the usual one, how often; None hangs up.
        results: for a kind of operation, the result instead of the usual one, or an `Answer` that
            is given whenever it is asked for.
        checkpoints: references that were saved, with when.
    """

    base_url: str = ""
    received: dict[str, list[Any]] = field(default_factory=dict)
    failing: dict[str, list[Answer | None]] = field(default_factory=dict)
    results: dict[str, list[Any]] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)
    futures: dict[str, Any] = field(default_factory=dict)
    paused: threading.Event = field(default_factory=threading.Event)
    _ids: Iterator[int] = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        """Be as new, but for the sessions that clients have."""
        self.paused.clear()
        for each in (self.received, self.failing, self.results, self.checkpoints):
            each.clear()

    def sent(self, route: str) -> Any:
        """The last body that this route received."""
        return self.received[route][-1]

    def count(self) -> Counter[str]:
        """How many requests each route received."""
        return Counter({route: len(bodies) for route, bodies in self.received.items()})

    # --- what it answers ---

    def answer(self, method: str, route: str, body: Any) -> Answer | None:
        with self._lock:
            self.received.setdefault(route, []).append(body)
            if waiting := self.failing.get(route):
                return waiting.pop(0)
        plain = re.sub(r"^(sessions|training_runs)/.*", r"\1", route)
        handler: Callable[[str, Any], Answer] | None = getattr(self, f"_{plain}", None)
        if handler is None:
            return 404, {"detail": f"no route {route}"}
        return handler(method if plain == "checkpoints" else route, body)

    def _healthz(self, _route: str, _body: Any) -> Answer:
        return 200, {"status": "ok"}

    def _config(self, _route: str, _body: Any) -> Answer:
        off = ("pjwt_auth_enabled", "parallel_fwdbwd_chunks", "use_pyqwest_transport")
        return 200, dict.fromkeys(off, False)

    def _dynamic_config(self, _route: str, _body: Any) -> Answer:
        return 200, {}

    def _telemetry(self, _route: str, _body: Any) -> Answer:
        return 200, {"status": "accepted"}

    def _create_session(self, _route: str, _body: Any) -> Answer:
        return 200, {"type": "create_session", "session_id": f"session-{next(self._ids)}"}

    def _session_heartbeat(self, _route: str, _body: Any) -> Answer:
        return 200, {"type": "session_heartbeat"}

    def _sessions(self, _route: str, _body: Any) -> Answer:
        return 200, {}

    def _get_server_capabilities(self, _route: str, _body: Any) -> Answer:
        known = {"model_name": MODEL, "max_context_length": 64, "trainable": True}
        return 200, {"supported_models": [{**known, "sampleable": True}]}

    def _create_model(self, _route: str, body: Any) -> Answer:
        model = f"{body['session_id']}:train:{body['model_seq_id']}"
        return self._later("create_model", {"model_id": model, "type": "create_model"})

    def _load_weights(self, _route: str, body: Any) -> Answer:
        model = body.get("model_id") or f"{body['session_id']}:train:{body['model_seq_id']}"
        if body["path"] not in self.checkpoints:
            return 404, {"detail": f"no checkpoint {body['path']}"}
        return self._later(
            "load_weights", {"path": body["path"], "type": "load_weights", "model_id": model}
        )

    def _get_info(self, _route: str, body: Any) -> Answer:
        data = {"arch": "tiny", "model_name": MODEL, "tokenizer_id": MODEL}
        rest = {"is_lora": True, "lora_rank": 4, "model_name": MODEL, "type": "get_info"}
        return 200, {"model_id": body["model_id"], "model_data": data, **rest}

    def _weights_info(self, _route: str, body: Any) -> Answer:
        if body["tinker_path"] not in self.checkpoints:
            return 404, {"detail": f"no checkpoint {body['tinker_path']}"}
        trained = {"train_unembed": False, "train_mlp": True, "train_attn": True}
        return 200, {"base_model": MODEL, "is_lora": True, "lora_rank": 4, **trained}

    def _forward_backward(self, _route: str, body: Any) -> Answer:
        if "lengths" in body:  # was protobuf
            kind = "forward" if body["forward_only"] else "forward_backward"
            return self._later(kind, _output(body["lengths"]), packed=True)
        return self._later("forward_backward", _output(_lengths(body["forward_backward_input"])))

    def _forward(self, _route: str, body: Any) -> Answer:
        return self._later("forward", _output(_lengths(body["forward_input"])))

    def _optim_step(self, _route: str, _body: Any) -> Answer:
        return self._later("optim_step", {"metrics": {"grad_norm:mean": 0.5}})

    def _save_weights(self, _route: str, body: Any) -> Answer:
        return self._saved(body, "weights", "save_weights")

    def _save_weights_for_sampler(self, _route: str, body: Any) -> Answer:
        if body.get("path") is None:
            session = f"sampling-{next(self._ids)}"
            made = {"sampling_session_id": session, "type": "save_weights_for_sampler"}
            return self._later("save_weights_for_sampler", made)
        return self._saved(body, "sampler_weights", "save_weights_for_sampler")

    def _saved(self, body: Any, folder: str, kind: str) -> Answer:
        reference = f"tinker://{body['model_id']}/{folder}/{body['path']}"
        self.checkpoints[reference] = f"2026-01-01T00:00:{len(self.checkpoints):02}Z"
        return self._later(kind, {"path": reference, "type": kind})

    def _checkpoints(self, _method: str, _body: Any) -> Answer:
        listed = [
            {
                "checkpoint_id": reference.partition("/weights/")[2] or reference,
                "checkpoint_type": "training" if "/weights/" in reference else "sampler",
                "time": when,
                "tinker_path": reference,
            }
            for reference, when in self.checkpoints.items()
        ]
        cursor = {"offset": 0, "limit": 100, "total_count": len(listed)}
        return 200, {"checkpoints": listed, "cursor": cursor}

    def _training_runs(self, route: str, _body: Any) -> Answer:
        """DELETE training_runs/<run>/checkpoints/<folder>/<name>"""
        run, _, path = route.removeprefix("training_runs/").partition("/checkpoints/")
        self.checkpoints.pop(f"tinker://{run}/{path}", None)
        return 200, {}

    def _retrieve_future(self, _route: str, body: Any) -> Answer:
        if self.paused.is_set():
            return 200, {"type": "try_again", "request_id": body["request_id"]}
        result = self.futures[body["request_id"]]
        return result if isinstance(result, tuple) else (200, result)

    def _later(self, kind: str, result: Any, *, packed: bool = False) -> Answer:
        request = str(next(self._ids))
        if instead := self.results.get(kind):
            result = instead.pop(0)
        self.futures[request] = _packed(result) if packed and "metrics" in result else result
        model = result.get("model_id") if isinstance(result, dict) else None
        return 200, {"request_id": request, "model_id": model}


def _lengths(given: Any) -> list[int]:
    return [
        sum(len(chunk["tokens"]) for chunk in datum["model_input"]["chunks"])
        for datum in given["data"]
    ]


def _output(lengths: list[int]) -> dict[str, Any]:
    return {
        "loss_fn_output_type": "ArrayRecord",
        "loss_fn_outputs": [
            {"logprobs": {"data": [LOGPROB] * n, "dtype": "float32", "shape": [n]}} for n in lengths
        ],
        "metrics": {"acme:mean": 2.0},
    }


def _parsed(kind: str, raw: bytes) -> Any:
    if "protobuf" not in kind:
        return json.loads(raw or b"null")
    from tinker.proto import tinker_public_pb2 as proto

    request = proto.ForwardBackwardRequest.FromString(raw)
    return {
        "model_id": request.model_id,
        "lengths": [_size(datum) for datum in request.data],
        "loss_fn": request.loss_fn,
        "forward_only": request.forward_only,
    }


def _size(datum: Any) -> int:
    return sum(len(chunk.encoded_text.tokens) // 4 for chunk in datum.model_input)  # int32


def _packed(output: dict[str, Any]) -> bytes:
    """Return the output of a pass as protobuf."""
    from tinker.proto import tinker_public_pb2 as proto

    logprobs = [each["logprobs"]["data"] for each in output["loss_fn_outputs"]]
    tensor = proto.BatchedTensor(
        data=np.array([p for each in logprobs for p in each], np.float32).tobytes(),
        offsets=(4 * np.cumsum([0, *map(len, logprobs)])).astype(np.int64).tobytes(),
        dtype=proto.DTYPE_FLOAT32,
    )
    record = proto.ArrayRecord(fields={"logprobs": tensor}, num_datums=len(logprobs))
    message = proto.ForwardBackwardOutput(
        loss_fn_output_type=output["loss_fn_output_type"],
        loss_fn_outputs=[record] if logprobs else [],
        metrics=output["metrics"],
    )
    packed: bytes = message.SerializeToString()
    return packed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        route = self.path.partition("?")[0].removeprefix("/api/v1/").removeprefix("client/")
        answer = self.fake.answer(
            self.command, route, _parsed(self.headers.get("Content-Type", ""), raw)
        )
        if answer is None:
            self.close_connection = True
            self.connection.close()
            return
        status, body = answer
        packed = isinstance(body, bytes)
        sent = body if packed else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", f"application/{'x-protobuf' if packed else 'json'}")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def fake_server() -> Iterator[FakeServer]:
    fake = FakeServer()
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    fake.base_url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
