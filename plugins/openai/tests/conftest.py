"""Two servers: `transformers serve`, and one that answers as a test tells it to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import crucible_adapter_openai.completer as openai_completer
import pytest
from crucible_kitchen import Completer, Kitchen

# --- transformers serve ---

# In its own process, since it takes PyTorch and Transformers to make the model.
MAKE_MODEL = r"""
import sys
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

characters = [chr(code) for code in range(32, 127)] + ["\n", "<|end|>", "<|unknown|>"]
vocab = {character: index for index, character in enumerate(characters)}
tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<|unknown|>"))
tokenizer.decoder = decoders.Fuse()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, eos_token="<|end|>", unk_token="<|unknown|>", pad_token="<|end|>"
)
tokenizer.chat_template = (
    "{% for m in messages %}"
    "{% if m.role == 'martian' %}{{ raise_exception('no such role') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
tokenizer.save_pretrained(sys.argv[1])
torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(vocab), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=65536, initializer_range=0.3,
        bos_token_id=None, eos_token_id=vocab["<|end|>"], pad_token_id=vocab["<|end|>"],
    )
)
# Without `do_sample` the server ignores the temperature.
end = vocab["<|end|>"]
model.generation_config = GenerationConfig(do_sample=True, eos_token_id=end, pad_token_id=end)
model.save_pretrained(sys.argv[1])
"""


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Options that lead to `transformers serve` with a tiny model of random weights."""
    model = tmp_path_factory.mktemp("model")
    hub = tmp_path_factory.mktemp("hub")
    (hub / "hub").mkdir()  # without it, /v1/models answers 500
    environment = {
        **os.environ,
        "HF_HOME": str(hub),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    subprocess.run([sys.executable, "-c", MAKE_MODEL, model], check=True, env=environment)
    command = [Path(sys.executable).with_name("transformers"), "serve", model, "--device", "cpu"]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    said = []
    for line in server.stdout:  # until it says where it listens, or dies
        said.append(line)
        if found := re.search(r"running on (http://\S+)", line):
            break
    else:
        server.wait()
        pytest.fail(f"transformers serve did not start:\n{''.join(said)}")
    drain = threading.Thread(target=server.stdout.read, daemon=True)
    drain.start()
    yield {"base_url": f"{found[1]}/v1", "model": str(model)}
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:  # a generation that was not stopped holds it
        server.kill()
        server.wait()
    drain.join()
    server.stdout.close()


# --- a server that does as it is told ---


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
        self.server.stub.seen.append(Seen(self.path, self.headers, self.body))
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


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as stub:
        yield stub


@pytest.fixture(scope="module")
def liar() -> Iterator[Stub]:
    """A stub that a whole module shares: binding the adapter takes longer than most lies."""
    with serving() as stub:
        yield stub


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Completer]]:
    """Bind the adapter with some options."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    kitchens = []

    def bind(**options: Any) -> Completer:
        kitchens.append(Kitchen(adapters={"completer": {"use": openai_completer, **options}}))
        return kitchens[-1].completer

    yield bind
    for kitchen in kitchens:
        kitchen.close()
