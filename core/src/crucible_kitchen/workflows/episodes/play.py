"""Episodes: problems played with a completer, each one sequence of tokens with its reward."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...chat import ChatTemplate, end_of_turn
from ...environments.guarded import Guarded
from ...errors import AdapterError, InvalidInput
from ...kitchen import Kitchen
from ...ports import Completer
from ...types import Completion, Datum, FloatArray, IntArray, ModelInput, SamplingParams
from ..algorithm import Sample
from ..config import TemplateConfig, WorkflowConfig
from ..problems.prepare import Problem
from ..rows.judge import longest_input
from ..sampling.rollouts import complete, drawn_seed
from ..sampling.sampler import SamplingConfig
from .transcript import Transcript

AT_ONCE = 256
"""Problems of `play_all` that are played at a time: each episode has an environment meanwhile."""
EVALUATION = 2**32 - 1
"""The `step` of `play` for evaluations, so that all of them draw the same random numbers. It is the
largest number of 32 bits, which no step of training has."""


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """What happened in an environment, as one sequence.

    Args:
        tokens: what was read and what was sampled, int64 `(T,)`.
        sampled: which of them were sampled, bool `(T,)`; S of them, and not the first.
        logprobs: of the sampled ones, as the completer returned them, nats, float32 `(S,)`.
        reward: the sum over its turns.
        turns: how many completions it has.
        truncated: whether a completion was cut off, or there was no room or turn for the next.
        parsed: whether an answer was found in every completion.
        metrics: what the environment measured in the last turn.
        sample: the same, to look at.
    """

    tokens: IntArray
    sampled: NDArray[np.bool_]
    logprobs: FloatArray
    reward: float
    turns: int
    truncated: bool
    parsed: bool
    metrics: Mapping[str, float]
    sample: Sample

    def of_sampled(self, per_target: FloatArray) -> FloatArray:
        """Return the part `(S,)` of an array over all targets, `(T - 1,)`, that belongs to the
        sampled tokens, such as the log probabilities that a training client returns.
        """
        return per_target[self.sampled[1:]]

    def datum(self, **inputs: FloatArray | float) -> Datum:
        """Return it for a loss.

        Args:
            inputs: of the loss, such as `advantages` and `logprobs`: a number for each sampled
                token, float32 `(S,)`, or one for all of them. Other tokens have 0.
        """
        targets = {"target_tokens": self.tokens[1:]}
        return Datum(
            ModelInput.from_ints(self.tokens[:-1]),
            targets | {name: self._over_targets(values) for name, values in inputs.items()},
        )

    def _over_targets(self, values: FloatArray | float) -> FloatArray:
        whole = np.zeros(len(self.tokens), np.float32)
        whole[self.sampled] = values
        return whole[1:]


class TurnsConfig(WorkflowConfig):
    """How long episodes are, while training and in evaluations of their own."""

    max_turns: int = Field(default=16, ge=1)
    """Completions in an episode, at most; one that is not over by then is truncated."""


class EpisodesConfig(TurnsConfig, SamplingConfig, TemplateConfig):
    """How episodes are played."""

    test_temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of sampling at evaluations; 0 is greedy."""

    def required_ports(self) -> tuple[str, ...]:
        return (*super().required_ports(), "completer")


@dataclass(frozen=True, slots=True)
class Rules:
    """How episodes are played.

    Args:
        template: the model's, for observations that are messages.
        max_turns: completions in an episode, at most.
        max_length: the longest input of the model in tokens, if there is a limit.
    """

    template: ChatTemplate
    max_turns: int
    max_length: int | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the record of a run is to hold of them."""
        template = self.template
        return {"template_date": template.today.isoformat() if template.writes_date else None}


def rules_of(
    kitchen: Kitchen, session: Any, config: EpisodesConfig, max_length: int | None
) -> Rules:
    """Return the rules of a configuration.

    Args:
        kitchen: its training client has the tokenizer.
        session: the client's.
        config: the settings.
        max_length: the longest input in tokens that is wanted; None is the model's own limit.
    """
    tokenizer = kitchen.training_client.helper("get_tokenizer")(session)
    template = ChatTemplate(tokenizer, config.chat_template_kwargs, date=config.template_date)
    limits = [each for each in (max_length, longest_input(tokenizer)) if each is not None]
    return Rules(template, config.max_turns, min(limits, default=None))


def play(
    completer: Completer,
    problems: Sequence[Problem],
    params: SamplingParams,
    rules: Rules,
    *,
    seed: int,
    step: int,
) -> list[list[Episode]]:
    """Play each problem `params.n` times: a function of the weights, seed and step.

    All episodes are played at once, a turn at a time. One ends when its environment says so, and
    is truncated where a completion was cut off, at the last turn, and where the context is full.

    Args:
        completer: where to sample; `params.model` names the weights.
        problems: what to play.
        params: how to sample; their seed is replaced and log probabilities are asked for.
        rules: what holds for all episodes.
        seed: the run's.
        step: the step that learns from the episodes; `EVALUATION` where none does. A part of the
            seed of what is sampled, and nothing else.

    Returns:
        The episodes of each problem.

    Raises:
        InvalidInput: an environment that does not work, or a prompt that leaves no room.
        AdapterError: a completion failed, or came without its tokens' log probabilities.
    """
    with contextlib.ExitStack() as stack:
        groups = [[_seat(stack, each, rules) for _ in range(params.n)] for each in problems]
        players = [player for group in groups for player in group]
        for turn in range(rules.max_turns):
            playing = [player for player in players if not player.over]
            if not playing:
                break
            params = replace(params, n=1, seed=drawn_seed(seed, step, turn))
            for player, completion in _completions(completer, playing, params, rules):
                player.take(completion, rules)
        return [[player.episode() for player in group] for group in groups]


def play_all(
    completer: Completer,
    problems: Sequence[Problem],
    params: SamplingParams,
    rules: Rules,
    *,
    seed: int,
) -> list[list[Episode]]:
    """Play any number of problems, `AT_ONCE` of them at a time; see `play`."""
    groups: list[list[Episode]] = []
    for part, start in enumerate(range(0, len(problems), AT_ONCE)):
        some = problems[start : start + AT_ONCE]
        groups += play(completer, some, params, rules, seed=seed, step=part)
    return groups


@dataclass(slots=True, eq=False)
class _Player:
    """An episode while it is played."""

    problem: Problem
    environment: Guarded
    transcript: Transcript
    reward: float = 0.0
    turns: int = 0
    over: bool = False
    truncated: bool = False
    parsed: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict)

    def take(self, completion: Completion, rules: Rules) -> None:
        """Take a completion, and read what the environment makes of it."""
        self.transcript.say(completion)
        step = self.environment.step(completion)
        self.turns += 1
        self.reward += float(step.reward)
        self.metrics = step.metrics
        self.parsed = self.parsed and step.parsed
        self.truncated = completion.finish_reason == "length"
        if not (step.done or self.truncated or self.turns == rules.max_turns):
            with _named(self.problem, f"turn {self.turns}"):
                self.transcript.read(step.observation)
            if room(self.transcript, rules) >= 1:
                return
            self.transcript.forget()  # nothing is said to it
        self.truncated = self.truncated or not step.done
        self.over = True

    def episode(self) -> Episode:
        """Return what happened."""
        transcript = self.transcript
        return Episode(
            transcript.tokens,
            transcript.sampled,
            transcript.logprobs,
            self.reward,
            self.turns,
            self.truncated,
            self.parsed,
            self.metrics,
            Sample(*transcript.texts, self.reward, self.environment.answer),
        )


def _seat(stack: contextlib.ExitStack, problem: Problem, rules: Rules) -> _Player:
    """Begin an episode."""
    environment = problem.environment()
    stack.callback(problem.release, environment)
    observation = environment.reset(problem.seed)
    transcript = Transcript(rules.template.with_({}, environment.tools))
    with _named(problem, "what is asked first"):
        transcript.read(observation)
        if room(transcript, rules) < 1:
            raise InvalidInput(
                f"it has {len(transcript)} tokens, and the longest input is {rules.max_length}, "
                "which leaves no room for an answer"
            )
    return _Player(problem, environment, transcript)


def _completions(
    completer: Completer, players: Sequence[_Player], params: SamplingParams, rules: Rules
) -> Iterator[tuple[_Player, Completion]]:
    """Yield each player with its completion, no longer than the room that it has."""
    alike: dict[tuple[int, bool], list[_Player]] = defaultdict(list)
    for player in players:
        limit = int(min(params.max_tokens, room(player.transcript, rules)))
        alike[limit, player.transcript.speaks].append(player)
    asked = 0
    for (limit, speaks), group in alike.items():
        assert params.seed is not None
        these = replace(
            params,
            max_tokens=limit,
            stop=_stop(rules.template) if speaks else params.stop,
            seed=params.seed + asked,
        )
        asked += len(group)
        prompts = [player.transcript.tokens for player in group]
        yield from zip(group, complete(completer, prompts, these), strict=True)


def room(transcript: Transcript, rules: Rules) -> float:
    """Return how many more tokens an episode may have. The last one is predicted, not read."""
    if rules.max_length is None:
        return float("inf")
    return rules.max_length + 1 - len(transcript)


def _stop(template: ChatTemplate) -> tuple[int, ...] | None:
    """Return what ends an answer in a conversation, where that is not the model's end token."""
    end = template.once("end_of_turn", lambda: end_of_turn(template.tokenizer))
    return None if end is None or end == template.tokens.eos else (end,)


@contextlib.contextmanager
def _named(problem: Problem, what: str) -> Iterator[None]:
    """Say in an error which problem it is of."""
    try:
        yield
    except AdapterError as error:
        raise InvalidInput(f"{problem.name}, {what}: {error.reason}") from error
