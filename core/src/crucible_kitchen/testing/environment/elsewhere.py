"""Plays environments in another process, which finds them by their names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ...configuration.chosen import ChosenEnvironment
from ..processes import Interpreter
from .playing import Transcript, maker, played


def played_elsewhere(
    chosen: ChosenEnvironment, plays: Sequence[tuple[int, list[str]]], turns: int
) -> list[Transcript]:
    """Return the transcripts of plays in another process, whose hashes of texts are others.

    Args:
        chosen: the environment, which the process finds by its name.
        plays: the seed and the completions of each.
        turns: completions of an episode at most.

    Raises:
        Exception: what was raised there.
        ProcessDied: the process ended; with what it wrote.
    """
    options = {name: getattr(chosen.options, name) for name in chosen.options.model_fields_set}
    with Interpreter() as interpreter:
        found: list[Transcript] = interpreter.run(
            _played, os.getcwd(), {"use": chosen.name, **options}, plays, turns
        )
    return found


def _played(
    folder: str, setting: Mapping[str, Any], plays: Sequence[tuple[int, list[str]]], turns: int
) -> list[Transcript]:
    """Play an environment. Its name may be that of a file in `folder`."""
    with contextlib.chdir(folder), maker(setting) as made:
        environment = made()
        return [played(environment, seed, texts, turns) for seed, texts in plays]
