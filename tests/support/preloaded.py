"""Start commands quickly: a process that has imported the command forks for each of them.

Starting Python and importing take most of the time of a short command. Otherwise each is a process
like any other, with its own folder, environment, PYTHONPATH and streams. What most commands of
tests use is imported beforehand: the workflow, and the noop adapters.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

START = """
import importlib
import crucible_kitchen.cli.app, crucible_kitchen.workflows.supervised, preloaded
from crucible_kitchen import PORTS
from crucible_kitchen.cli import ending, main, stray
import numpy.random
for port in PORTS:
    importlib.import_module(f"kitchen_noop.{port}")
preloaded.wait_for_a_command()
main()
"""


class Commands:
    """The process that forks, and how to ask it for a command."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(Path(__file__).parent), *_on_path(os.environ)])
        self._process = subprocess.Popen(
            [sys.executable, "-c", START],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, arguments: Sequence[str], folder: Path, environ: Mapping[str, str], timeout: float
    ) -> tuple[int, str, str]:
        """Run a command; return its exit code, its output, and its errors.

        One that takes longer than `timeout` seconds is ended, and its errors show where it was.
        """
        ask, answer = self._process.stdin, self._process.stdout
        assert ask is not None
        assert answer is not None
        with tempfile.TemporaryDirectory() as streams:
            print(json.dumps([arguments, str(folder), environ, streams, timeout]), file=ask)
            ask.flush()
            code = int(answer.readline())
            out, err = (Path(streams, name).read_text("utf-8") for name in ("1", "2"))
        return code, out, err

    def close(self) -> None:
        self._process.communicate()  # it ends when its input does


def _on_path(environ: Mapping[str, str]) -> list[str]:
    return list(filter(None, environ.get("PYTHONPATH", "").split(os.pathsep)))


def wait_for_a_command() -> None:
    """Fork for each requested command and print its exit code; return in the fork."""
    known = {"", *_on_path(os.environ)}
    rest = [place for place in sys.path if place not in known]
    for line in sys.stdin:
        if command := os.fork():
            _, status = os.waitpid(command, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        arguments, folder, environ, streams, timeout = json.loads(line)
        for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
            place = os.path.join(streams, str(number)) if number else os.devnull
            os.dup2(os.open(place, flags | (os.O_CREAT if number else 0)), number)
        faulthandler.dump_traceback_later(timeout, exit=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the foreground
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environ)
        sys.path[:] = ["", *_on_path(environ), *rest]
        sys.argv[1:] = arguments
        return
    sys.exit()
