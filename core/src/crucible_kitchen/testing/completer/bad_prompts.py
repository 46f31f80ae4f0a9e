"""What is not a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...types import ModelInput

BAD_PROMPTS: Mapping[str, tuple[str, Any]] = {
    "nothing": ("", []),
    "None": ("", None),
    "text": ("", "text"),
    "a number": ("", 3),
    "rows": ("tokens", [[1], [2, 3]]),
    "floats": ("tokens", [1.5, 2.5]),
    "a negative token": ("tokens", [1, -1]),
    "an empty ModelInput": ("tokens", ModelInput(())),
    "a message without content": ("messages", [{"role": "user"}]),
    "a message without a role": ("messages", [{"content": "hello"}]),
    "a role that is no text": ("messages", [{"role": 3, "content": "hello"}]),
    "content that is no text": ("messages", [{"role": "user", "content": 3}]),
    "a message and text": ("messages", [{"role": "user", "content": "hello"}, "hello"]),
}
"""By what is wrong: the kind of prompt that it fails to be ("" for any), and what is given."""
