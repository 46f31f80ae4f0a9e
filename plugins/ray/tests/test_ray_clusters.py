"""Drivers, in processes of their own, whose cluster dies under them, or that die themselves."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import ray_processes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        int(os.environ.get("TRIALS", "1")) == 1, reason="it takes a minute; set TRIALS"
    ),
]

DRIVER = """
import json, signal, sys, time
import numpy as np
from crucible_kitchen import Datum, Kitchen, ModelInput, SessionConfig, Unavailable

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the foreground

datum = Datum(
    ModelInput.from_ints(range(1, 9)),
    {"target_tokens": np.arange(2, 10), "weights": np.ones(8, np.float32)},
)

def say(**said):
    print(json.dumps(said), flush=True)
    return sys.stdin.readline()

def step():
    loss = client.forward_backward(session, [datum])
    taken = client.optim_step(session, 1e-2)
    found = client.await_(loss).loss
    client.await_(taken)
    return found

with Kitchen(adapters={"training_client": json.loads(sys.argv[1])}) as kitchen:
    client = kitchen.training_client
    session = client.start_session(SessionConfig("tiny"))
    checkpoint = client.save_checkpoint(session, "before")
    say(loss=step())
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < 60:
            step()
    except Unavailable as error:
        say(error=str(error), seconds=time.monotonic() - begun)
    client.load_checkpoint(session, checkpoint)
    say(loss=step())
    time.sleep(600)
"""
TINY = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


class Driver:
    """A program with a session."""

    def __init__(self, folder: Path, env: Mapping[str, str], **options: Any) -> None:
        adapter = {
            "use": "ray",
            "models": {"tiny": TINY},
            "checkpoint_dir": str(folder / "checkpoints"),
            "device": "cpu",
            **options,
        }
        self._err = folder / "err"
        with self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, json.dumps(adapter)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env={**os.environ, **env},
                start_new_session=True,
            )

    def hear(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self._err.read_text()
        said: dict[str, Any] = json.loads(line)
        return said

    def go_on(self) -> None:
        """Let it continue after what it said."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()


@contextmanager
def running(driver: Driver) -> Iterator[Driver]:
    try:
        yield driver
    finally:
        driver.end()


@contextmanager
def head(port: int, env: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the head of a cluster, which is its only node, and ends with the first of its parts."""
    folder = tempfile.mkdtemp(dir="/tmp")  # sockets have short names
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.2", f"--port={port}", f"--temp-dir={folder}"),
        *("--include-dashboard=false", "--disable-usage-stats", "--num-cpus=4"),
        f"--object-store-memory={100 << 20}",
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        parts = ray_processes.below(process.pid)
        process.terminate()
        process.wait(60)
        kill(parts)
        shutil.rmtree(folder, ignore_errors=True)


def kill(pids: Iterable[int]) -> None:
    """End processes of Ray that do not end soon by themselves."""
    for pid in ray_processes.left(pids, 10):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.2", port)) == 0


def wait_for(port: int) -> None:
    end = time.monotonic() + 120
    while not listening(port):
        assert time.monotonic() < end, "the head has not started"
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_head_that_is_killed_is_a_clear_error_and_training_goes_on_on_a_new_cluster(
    tmp_path: Path,
) -> None:
    port = free_port()
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with ExitStack() as stack:
        first = stack.enter_context(head(port, env))
        wait_for(port)
        driver = stack.enter_context(
            running(Driver(tmp_path, env, address=f"127.0.0.2:{port}", workers=2))
        )
        expected = driver.hear()["loss"]
        parts = ray_processes.below(first.pid)
        stack.callback(kill, parts)
        workers = ray_processes.ranks(first.pid)
        driver.go_on()
        [gcs] = [pid for pid, line in parts.items() if "gcs_server" in line.split()[0]]
        os.kill(gcs, signal.SIGKILL)
        failed = driver.hear()
        assert "is gone" in failed["error"] or "a worker died" in failed["error"]
        assert failed["seconds"] < 30
        assert not ray_processes.left(workers, 60)

        second = stack.enter_context(head(port, env))
        wait_for(port)
        driver.go_on()
        assert driver.hear()["loss"] == expected
        workers = ray_processes.ranks(second.pid)
        assert len(workers) == 2
        driver.process.kill()
        assert not ray_processes.left(workers, 60)  # they end with who started them


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_ray_of_one_s_own(tmp_path: Path, how: signal.Signals) -> None:
    with ExitStack() as stack:
        driver = stack.enter_context(running(Driver(tmp_path, {}, workers=2)))
        driver.hear()
        parts = ray_processes.below(driver.process.pid)
        stack.callback(kill, parts)
        assert len(ray_processes.ranks(driver.process.pid)) == 2
        # Ctrl-C reaches every process of the terminal.
        (os.killpg if how == signal.SIGINT else os.kill)(driver.process.pid, how)
        assert driver.process.wait(60) != 0
        # What Ray calls agents look less often for who started them.
        assert not ray_processes.left([pid for pid in parts if "Agent" not in parts[pid]], 60)
