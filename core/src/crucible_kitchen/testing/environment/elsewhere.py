"""Plays environments in a process of its own: reads what as JSON, writes the transcripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from ...configuration.chosen import ChosenEnvironment
from .playing import Transcript, maker, played

TIMEOUT = 300.0
"""Seconds that the other process may take."""


def played_elsewhere(
    chosen: ChosenEnvironment, plays: list[tuple[int, list[str]]], turns: int
) -> list[Transcript]:
    """Return the transcripts of plays in another process, whose hashes of texts are others.

    Args:
        chosen: the environment, which the process finds by its name.
        plays: the seed and the completions of each.
        turns: completions of an episode at most.

    Raises:
        AssertionError: the process failed; with what it wrote.
    """
    asked = {"setting": chosen.describe(), "path": sys.path, "plays": plays, "turns": turns}
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import main; main()"],
        input=json.dumps(asked),
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, f"another process cannot play it:\n{done.stderr}"
    found: list[Transcript] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Play what standard input asks for."""
    asked: dict[str, Any] = json.load(sys.stdin)
    sys.path[:] = asked["path"]
    with maker(asked["setting"]) as made:
        environment = made()
        transcripts = [
            played(environment, seed, texts, asked["turns"]) for seed, texts in asked["plays"]
        ]
    print(json.dumps(transcripts))
