"""Data sets of several kinds keep every promise of an environment."""

from __future__ import annotations

from typing import Any

import pytest
from crucible_kitchen.testing import LEVEL, EnvironmentConformance


class TestText(EnvironmentConformance):
    """Asked as text, with levels that change while seeds go up."""

    variant = "text, with a curriculum"
    level = LEVEL
    completions = ("", "12", "-3.0", "12 or 13")

    @pytest.fixture
    def environment(self) -> Any:
        curriculum = [{"level": 0}, {"at": 2, "level": {"num_terms": 3}}]
        return {
            "use": "reasoning-gym",
            "dataset": "chain_sum",
            "answer": "text",
            "as_chat": False,
            "curriculum": curriculum,
        }


class TestGlobalGenerator(EnvironmentConformance):
    """Asked as messages, of a data set that draws from Python's global generator."""

    variant = "messages"
    level = LEVEL
    seeds = (0, 1, 3)
    completions = ("", "[5, 5]", "<answer>[5, 5]</answer>", "<answer></answer>")

    @pytest.fixture
    def environment(self) -> Any:
        return {"use": "reasoning-gym", "dataset": "list_functions"}
