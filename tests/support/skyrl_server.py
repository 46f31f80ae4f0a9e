"""A SkyRL tx server with a tiny random model, on 127.0.0.1: a real server of Tinker's API."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BACKEND: dict[str, Any] = {
    "max_lora_adapters": 9,  # the first is the base model's
    "max_lora_rank": 8,
    # One shape is compiled, whatever the size of a batch: it is passed over a sequence at a time,
    # and sampled in eights, which are filled up.
    "train_micro_batch_size": 1,
    "sample_max_num_sequences": 8,
}


@dataclass(frozen=True)
class SkyrlServer:
    """A server that runs.

    Attributes:
        base_url: where it listens.
        model: name of its base model, a folder with a tokenizer.
        log: what it and its engine said.
        pid: of its process; the engine is that one's child.
    """

    base_url: str
    model: str
    log: Path
    pid: int

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Answer within the block, but compute nothing."""
        psutil: Any = importlib.import_module("psutil")  # SkyRL needs it; it has no types
        [engine] = psutil.Process(self.pid).children()
        engine.suspend()
        try:
            yield
        finally:
            engine.resume()


@contextmanager
def started(folder: Path, **backend: Any) -> Iterator[SkyrlServer]:
    """Run a server within the block, until it listens; its model is ready some seconds later.

    The first step of a shape takes seconds, to compile; then a tenth of a second.

    Args:
        folder: an empty one, for its model, database, checkpoints and log.
        backend: options of SkyRL's JAX backend beside `BACKEND`.
    """
    environ = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "JAX_PLATFORMS": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        # Most of the time of tests is compilation; without optimisation it is a third less.
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    }
    model, log = folder / "model", folder / "server.log"
    make = Path(__file__).with_name("skyrl_model.py")
    subprocess.run([sys.executable, make, model], check=True, env=environ)
    arguments: list[str | Path] = [
        *("api", "--port", "0", "--base-model", model, "--backend", "jax"),
        *("--backend-config", json.dumps({**BACKEND, **backend})),
        *("--checkpoints-base", folder / "checkpoints"),
        *("--database-url", f"sqlite:///{folder / 'tinker.db'}"),
    ]
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("skyrl_process.py"), *arguments],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    try:
        with log.open("w") as said:
            for line in server.stdout:  # until it says where it listens, or dies
                said.write(line)
                if found := re.search(r"running on (http://\S+)", line):
                    break
            else:
                raise RuntimeError(f"SkyRL did not start:\n{log.read_text()}")
            drain = threading.Thread(target=_copy, args=(server.stdout, log), daemon=True)
        drain.start()
        yield SkyrlServer(found[1], str(model), log, server.pid)
    finally:
        server.terminate()  # it stops its engine
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    drain.join()
    server.stdout.close()


def _copy(stream: Any, log: Path) -> None:
    with log.open("a", buffering=1) as said:
        for line in stream:
            said.write(line)
