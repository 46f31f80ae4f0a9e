"""What trainer and sampler are compared on: the prompt of a problem, as token ids."""

from __future__ import annotations

from ...chat import ChatTemplate
from ...types import IntArray
from ..problems.prepare import Problem
from .transcript import Transcript


def prompt_of(problem: Problem, template: ChatTemplate) -> IntArray:
    """Return what the model is asked first in a problem, int64 `(P,)`, P at least 1.

    Raises:
        InvalidInput: the environment does not work, or the template refuses what it asks.
    """
    environment = problem.environment()
    try:
        observation = environment.reset(problem.seed)
        transcript = Transcript(template.with_({}, environment.tools))
        transcript.read(observation)
        return transcript.tokens
    finally:
        problem.release(environment)
