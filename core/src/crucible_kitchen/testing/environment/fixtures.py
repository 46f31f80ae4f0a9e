"""The fixtures of an environment's tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from ..conformance import Conformance
from .playing import Maker, maker


class EnvironmentFixtures(Conformance):
    """The fixtures of the suite."""

    seeds: ClassVar[tuple[int, ...]] = (0, 1, 2, 3, 4)
    """The problems that are tried, as far as the environment has them."""
    completions: ClassVar[tuple[str, ...]] = ("", "0", "42", "yes", "<answer>7</answer>")
    """What the model says in them. Add some that the environment understands."""
    most_turns: ClassVar[int] = 100
    """How many completions an episode may take before it ends."""

    @pytest.fixture
    def says(self) -> str | None:
        """One more completion that the environment understands. Optional: for `crucible check`,
        which knows no others than those of the kit.
        """
        return None

    @pytest.fixture
    def made(self, environment: Any, says: str | None) -> Iterator[Maker]:
        """A function that makes an environment."""
        with maker(environment) as made:
            made.says = () if says is None else (says,)
            yield made

    def _adapter(self, fixtures: Mapping[str, Any]) -> None:
        """An environment is not an adapter: nothing that it does is optional."""

    def problems(self, made: Maker) -> list[int]:
        """Return the seeds that are tried."""
        size = getattr(made(), "size", None)
        return [seed for seed in self.seeds if size is None or seed < size]

    def said(self, made: Maker, seed: int) -> list[list[str]]:
        """Return the completions of several episodes of a problem, the right answer included."""
        environment = made()
        environment.reset(seed)
        answer = getattr(environment, "answer", None)
        right = [] if answer is None else [[str(answer)]]
        texts = [*self.completions, *made.says]
        return [*right, *([text] for text in texts), texts]
