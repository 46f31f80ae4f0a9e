"""An environment of TRL keeps every promise of an environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen.testing import LEVEL, EnvironmentConformance

GUESSING = Path(__file__).with_name("guessing.py")
CALL = '<tool_call>\n{"name": "is_larger", "arguments": {"than": 4}}\n</tool_call>'


class TestGuessing(EnvironmentConformance):
    level = LEVEL
    completions = (
        CALL,
        "it is 4",
        '<tool_call>{"name": "say", "arguments": {"number": 6}}</tool_call>',
        f"hm {CALL}{CALL}",
    )

    @pytest.fixture
    def environment(self) -> Any:
        return {
            "use": "trl",
            "factory": f"{GUESSING}:Guessing",
            "max_tool_calling_iterations": 5,
        }
