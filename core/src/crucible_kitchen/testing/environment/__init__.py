"""What an environment promises."""

from __future__ import annotations

from .answers import Answers
from .determinism import Determinism
from .isolation import Isolation
from .values import Values


class EnvironmentConformance(Determinism, Answers, Isolation, Values):
    """Tests of an environment. Override the fixture `environment`, which returns what a user
    writes for `workflow.environment`: a name, or a table such as `{"use": Maze, "size": 5}`. Add to
    `completions` what the environment understands.
    """

    kind = "environment"
    yields = 'what a user writes for it, such as "maze" or {"use": Maze, "size": 5}'
