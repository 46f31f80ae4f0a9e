"""Problems as conversations with a completer alone: no tokenizer, and nothing to learn from."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ...chat import ChatMessage
from ...chat.messages import conversation
from ...environments import Observation
from ...environments.guarded import Guarded
from ...errors import AdapterError, InvalidInput
from ...ports import Completer
from ...types import Completion, Message, SamplingParams
from ..algorithm import Sample
from ..problems.prepare import Problem
from ..sampling.rollouts import drawn_seed
from .play import AT_ONCE


@dataclass(slots=True, eq=False)
class Spoken:
    """An episode as a conversation, while it is played and afterwards.

    Args:
        problem: what is played.
        environment: where.
        messages: what was said so far; the first `asked` of them begin the problem.
        answer: the right answer, if the environment knows it.
        reward: the sum over its turns.
        turns: how many completions it has.
        over: whether it has ended.
        truncated: whether a completion was cut off, or the turns came to an end.
        parsed: whether an answer was found in every completion.
        metrics: what the environment measured in the last turn.
    """

    problem: Problem
    environment: Guarded
    messages: list[ChatMessage] = field(default_factory=list)
    asked: int = 0
    answer: str | None = None
    reward: float = 0.0
    turns: int = 0
    over: bool = False
    truncated: bool = False
    parsed: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict)

    def begin(self) -> None:
        """Ask what is asked first."""
        self.read(self.environment.reset(self.problem.seed))
        self.asked, self.answer = len(self.messages), self.environment.answer
        if self.environment.tools:
            raise InvalidInput(f"{self.problem.name} has tools, which no completer takes")

    def read(self, observation: Observation) -> None:
        """Append what the environment says.

        Raises:
            InvalidInput: it is not messages.
        """
        items: list[Any] = [] if isinstance(observation, str) else list(observation)
        if not items or not isinstance(items[0], Mapping):
            raise InvalidInput(
                f"{self.problem.name} asks a text or token ids, and a completer alone reads "
                "conversations: set as_chat = true, or leave out model_of"
            )
        self.messages += conversation(items)

    def take(self, completion: Completion, last: bool) -> None:
        """Take a completion, and read what the environment makes of it."""
        self.messages.append({"role": "assistant", "content": completion.text})
        step = self.environment.step(completion)
        self.turns += 1
        self.reward += float(step.reward)
        self.metrics, self.parsed = step.metrics, self.parsed and step.parsed
        cut = completion.finish_reason == "length"
        self.truncated = cut or (last and not step.done)
        self.over = step.done or self.truncated
        if not self.over:
            self.read(step.observation)

    @property
    def sample(self) -> Sample:
        """What was asked first, and all that followed."""
        asked, said = self.messages[: self.asked], self.messages[self.asked :]
        text = said[0]["content"] if len(said) == 1 else as_text(said)
        return Sample(as_text(asked), text, self.reward, self.answer)


def play_spoken(
    completer: Completer,
    problems: Sequence[Problem],
    params: SamplingParams,
    max_turns: int,
    seed: int,
) -> list[list[Spoken]]:
    """Play each problem `params.n` times, as far as a completer can without token ids.

    Args:
        completer: where to sample; `params.model` names the weights.
        problems: what to play.
        params: how to sample; their seed is replaced.
        max_turns: completions in an episode, at most.
        seed: of the run.

    Raises:
        InvalidInput: an environment that does not work, or does not ask messages.
        AdapterError: a completion failed.
    """
    groups: list[list[Spoken]] = []
    for part, start in enumerate(range(0, len(problems), AT_ONCE)):
        with contextlib.ExitStack() as stack:
            some = [
                [_begun(stack, problem) for _ in range(params.n)]
                for problem in problems[start : start + AT_ONCE]
            ]
            playing = [spoken for group in some for spoken in group]
            for turn in range(max_turns):
                these = replace(params, n=1, seed=drawn_seed(seed, part, turn))
                prompts = [cast("list[Message]", [*spoken.messages]) for spoken in playing]
                results = completer.complete_batch(prompts, these) if prompts else []
                for spoken, result in zip(playing, results, strict=True):
                    if isinstance(result, AdapterError):
                        raise result
                    spoken.take(result, last=turn == max_turns - 1)
                playing = [spoken for spoken in playing if not spoken.over]
            groups += some
    return groups


def spoken_metrics(groups: Sequence[Sequence[Spoken]]) -> dict[str, float]:
    """Return the figures of `episode_metrics` that need no tokens, under the same names."""
    episodes = [episode for group in groups for episode in group]
    own: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        figures = {
            "reward/total": episode.reward,
            "frac_truncated": episode.truncated,
            "frac_unparsed": not episode.parsed,
            "turns_per_episode": episode.turns,
        }
        for name, value in {**episode.metrics, **figures}.items():
            own[name].append(float(value))
    return {f"env/all/{name}": sum(values) / len(values) for name, values in own.items()}


def _begun(stack: contextlib.ExitStack, problem: Problem) -> Spoken:
    environment = problem.environment()
    stack.callback(problem.release, environment)
    spoken = Spoken(problem, environment)
    spoken.begin()
    return spoken


def as_text(messages: Sequence[ChatMessage]) -> str:
    """Return messages for people to read, a line or more each."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)
