"""Two servers: `transformers serve`, and one that answers as a test tells it to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crucible_adapter_openai.completer as openai_completer
import pytest
from crucible_kitchen import Completer, Kitchen
from inference_stub import Stub, serving

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
    transformers = str(Path(sys.executable).with_name("transformers"))
    command = [transformers, "serve", str(model), "--device", "cpu"]
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


# --- a server that answers as a test says ---


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
