"""An HTTP server on this machine that answers as a test tells it to.

with serving() as stub:
    stub.reply = lambda exchange: exchange.send({"choices": [...]})
    ...
    assert [seen.path for seen in stub.seen] == ["/v1/chat/completions"]
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Seen(NamedTuple):
    """What came in one request."""

    path: str
    headers: Mapping[str, str]
    body: Any


class Exchange(BaseHTTPRequestHandler):
    """One request to the stub, and the means to answer it."""

    server: StubServer
    protocol_version = "HTTP/1.1"
    body: Any = None

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.do_GET()

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.stub.seen.append(Seen(self.path, headers, self.body))
        self.server.stub.reply(self)

    def send(
        self,
        answer: object,
        status: int = 200,
        headers: Mapping[str, str] = {},
        kind: str = "application/json",
    ) -> None:
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {
            "content-type": kind,
            "content-length": str(len(data)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, events: Iterable[object], cut: bool = False) -> None:
        """Send server-sent events: text as it is, anything else as JSON."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            line = event if isinstance(event, str) else json.dumps(event)
            data = f"data: {line}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Stub:
    """What the stub was asked, and how it is to reply."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[Seen] = []
        self.reply: Callable[[Exchange], None] = lambda exchange: exchange.send({})
        self.over = threading.Event()  # set at the end of the test: let nobody wait any longer


class StubServer(ThreadingHTTPServer):
    stub: Stub
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the client hung up, which tests do


@contextmanager
def serving() -> Iterator[Stub]:
    server = StubServer(("127.0.0.1", 0), Exchange)
    server.stub = Stub(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.stub
    server.stub.over.set()
    server.shutdown()
    thread.join()
    server.server_close()
