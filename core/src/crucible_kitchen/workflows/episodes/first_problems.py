"""The first problems of a configuration: tried, and shown, without learning from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...kitchen import Kitchen
from ..problems.prepare import Problem, Problems, ProblemsConfig, prepare_problems
from .play import EpisodesConfig, rules_of
from .probe import prompt_of


class PlayedProblems(ProblemsConfig, EpisodesConfig):
    """Which problems are played, and how."""


def first_problems(problems: Problems, count: int) -> Sequence[Problem]:
    """Return the first problems that are trained on, in their stored order; of problems without
    end, those of the first batch at most.
    """
    train = problems.train
    first = train if isinstance(train, Sequence) else next(train.between(0, 1))[2]
    return first[:count]


def try_problems(
    kitchen: Kitchen, session: Any, config: PlayedProblems
) -> Iterator[tuple[str, str]]:
    """Try the first problem to train on and to evaluate on; yield what is in order, and how.

    Raises:
        CrucibleError: names what is not.
    """
    problems = prepare_problems(kitchen, session, config)
    rules = rules_of(kitchen, session, config, config.max_length)
    for purpose, first in (("train", first_problems(problems, 1)), ("test", problems.test[:1])):
        for problem in first:
            yield (
                f"{purpose} problems",
                f"{problem.name}: {len(prompt_of(problem, rules.template))} tokens",
            )
    problems.close()


def show_problems(
    kitchen: Kitchen, session: Any, config: PlayedProblems, count: int
) -> Iterator[str]:
    """Yield what the model is asked in the first `count` problems to train on.

    Raises:
        InvalidInput: an environment that does not work.
    """
    problems = prepare_problems(kitchen, session, config)
    template = rules_of(kitchen, session, config, config.max_length).template
    for problem in first_problems(problems, count):
        tokens = prompt_of(problem, template)
        known = "" if problem.answer is None else f"\nanswer: {problem.answer}"
        text = template.tokens.decode(tokens.tolist())
        yield f"{problem.name}, {len(tokens)} tokens\n{text}{known}"
    problems.close()
