"""Environments are made, and played with completions that are given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...configuration.chosen import ChosenEnvironment, OneEnvironment
from ...environments import Environment, Observation, Step
from ...kitchen import Kitchen
from ...settings import in_code
from ...types import Completion

Transcript = list[Any]
"""What an environment answered, as plain data."""


@dataclass(slots=True)
class Maker:
    """Makes environments of one kind, and closes them at the end."""

    chosen: ChosenEnvironment
    says: Sequence[str] = ()
    """Further completions that it understands."""
    _made: list[Any] = field(default_factory=list)

    def __call__(self) -> Environment:
        made = self.without_closing()
        self._made.append(made)
        return made

    def without_closing(self) -> Environment:
        """Make one that the caller closes."""
        return self.chosen.make_plain()

    def close(self) -> None:
        """Close what was made. That closing works is a promise of its own."""
        for made in self._made:
            with suppress(Exception):
                if callable(close := getattr(made, "close", None)):
                    close()


@contextmanager
def maker(setting: Any) -> Iterator[Maker]:
    """Yield what makes the environments of a setting, such as `{"use": "arithmetic"}`.

    Raises:
        ConfigurationError: there is no such environment, or its options are wrong.
    """
    table = {"environment": setting}
    with Kitchen(settings=in_code({"workflow": table})) as kitchen:
        made = Maker(kitchen.configure(OneEnvironment, table, ("workflow",)).environment)
        try:
            yield made
        finally:
            made.close()


def completion(text: str) -> Completion:
    """Return a completion as one without token ids would come from a server."""
    return Completion(text, None, None, "stop")


def begun(environment: Environment, seed: int) -> Transcript:
    """Begin a problem; return what is asked, the tools and the right answer."""
    asked = plain(environment.reset(seed))
    about = [plain(getattr(environment, name, None)) for name in ("tools", "answer")]
    return [asked, *about]


def played(environment: Environment, seed: int, texts: Iterable[str], turns: int) -> Transcript:
    """Play a problem from its beginning with these completions in turn, at most `turns` of them.

    Args:
        environment: which one.
        seed: which problem.
        texts: the completions; from the first again when they are used up.
        turns: how many at most.
    """
    said, transcript = list(texts), begun(environment, seed)
    for turn in range(turns):
        step = environment.step(completion(said[turn % len(said)]))
        transcript.append(noted(step))
        if step.done:
            break
    return transcript


def noted(step: Step) -> Transcript:
    """Return a step as plain data, in which NaN equals NaN."""
    following = None if step.done else plain(step.observation)
    metrics = {name: repr(float(value)) for name, value in step.metrics.items()}
    return [repr(float(step.reward)), bool(step.done), following, metrics, bool(step.parsed)]


def plain(value: Observation | Any) -> Any:
    """Return a value as JSON would hold it."""
    return json.loads(json.dumps(value, default=_plain, sort_keys=True))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    return repr(value)
