"""The environment: one question, one answer, and the data set's own score as the reward."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from crucible_kitchen import Completion, Observation, Step

from . import library
from .options import ReasoningGymOptions
from .problems import problem

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset


class ReasoningGym:
    """A data set of reasoning-gym. There is a problem for every seed; a few data sets know so few
    questions that different seeds ask the same.

    The reward is the data set's score, 0 to 1; some give a part of it for what is nearly right. The
    metric `solved` counts full scores alone. A completion without an answer, or with one that the
    data set cannot read, has reward 0 and is not `parsed`.
    """

    answer: str | None = None
    """The right answer of the problem that was begun last; None where the library has none."""

    def __init__(self, options: ReasoningGymOptions) -> None:
        self._options = options
        self._dataset: ProceduralDataset | None = None
        self._entry: dict[str, Any] = {}

    @property
    def version(self) -> str:
        """What the problems depend on besides the options."""
        return f"reasoning-gym {metadata.version('reasoning-gym')}"

    def reset(self, seed: int) -> Observation:
        options = self._options
        self._dataset, self._entry = problem(options.dataset, options.config_of(seed), seed)
        self.answer = self._entry["answer"]
        question = options.prompt.replace("{question}", self._entry["question"])
        return [*options.messages(question)] if options.as_chat else question

    def step(self, completion: Completion) -> Step:
        assert self._dataset is not None
        text = completion.text
        said = library.answer_in_tags(text) if self._options.answer == "tags" else text.strip()
        if not said:
            return _unparsed()
        try:
            reward = float(self._dataset.score_answer(said, self._entry))
        # It reads numbers, JSON or moves out of a text that may have none, and some evaluate it as
        # Python, where "exit()" would end the run.
        except (Exception, SystemExit):
            return _unparsed()
        return Step(reward=reward, metrics={"solved": float(reward >= 1)})


def _unparsed() -> Step:
    return Step(reward=0.0, parsed=False, metrics={"solved": 0.0})
