"""An environment of a real server keeps every promise of an environment."""

from __future__ import annotations

from typing import Any

import pytest
from crucible_kitchen.testing import LEVEL, EnvironmentConformance


class TestGame(EnvironmentConformance):
    level = LEVEL
    completions = ("5", "0", "9", "five", "2")

    @pytest.fixture
    def environment(self, server: str) -> Any:
        return {
            "use": "openenv",
            "base_url": server,
            "action": {"number": "{completion}"},
            "observation": "{prompt}",
        }
