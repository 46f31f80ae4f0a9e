"""What `reset` is called with for a seed, and what is asked before it answers."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crucible_kitchen import InvalidInput


class Rows:
    """Problems of a JSON Lines file, one a row.

    Raises:
        InvalidInput: it cannot be read, a line is not a table, or it has no rows.
    """

    def __init__(self, path: Path) -> None:
        try:
            data = path.read_bytes()
            lines = data.decode("utf-8").split("\n")  # a text may hold other line separators
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"dataset {path} cannot be read: {error}") from error
        self.sha256 = hashlib.sha256(data).hexdigest()
        self._rows = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInput(f"dataset {path}, line {number}: {error}") from error
            if not isinstance(row, dict):
                raise InvalidInput(f"dataset {path}, line {number} is not a table")
            self._rows.append(row)
        if not self._rows:
            raise InvalidInput(f"dataset {path} has no rows")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        # As it was read: what an environment does with a row is not seen by another.
        row: Mapping[str, Any] = json.loads(json.dumps(self._rows[number]))
        return row


@functools.lru_cache(maxsize=4)
def rows_of(path: Path, changed: int) -> Rows:
    """Return the rows of a file that was changed last at this time, in ns."""
    return Rows(path)


def check_takes_seed(reset: Callable[..., Any], name: str) -> None:
    """Check that `reset(seed=...)` can be called.

    Raises:
        InvalidInput: it takes no seed.
    """
    parameters = inspect.signature(reset).parameters.values()
    if not any(each.name == "seed" or each.kind is each.VAR_KEYWORD for each in parameters):
        raise InvalidInput(
            f"{name}.reset takes no seed, so a problem could not be asked again: give it an "
            "argument `seed`, or give its problems as the rows of `dataset`"
        )


def asked(prompt: Any, observation: Any) -> list[dict[str, Any]]:
    """Return the messages of a prompt, the last of which ends with what `reset` returned.

    Raises:
        InvalidInput: the prompt is not text or messages, or `reset` returned something else.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not (isinstance(messages, list) and messages and all(isinstance(m, dict) for m in messages)):
        raise InvalidInput(f"a prompt is a text or messages, not a {type(prompt).__name__}")
    if observation is None:
        return messages
    content = messages[-1].get("content")
    if not (isinstance(observation, str) and isinstance(content, str)):
        raise InvalidInput(
            f"reset returned a {type(observation).__name__}, and what is asked is text: it must "
            "return text, or None"
        )
    return [*messages[:-1], {**messages[-1], "content": content + observation}]
