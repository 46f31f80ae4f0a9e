"""A teacher and a student on the same problems: what both kinds of distillation share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from ...kitchen import Kitchen
from ...ports import TrainingClient
from ...types import FloatArray, SamplingParams
from ..algorithm import Evaluation, Metrics
from ..config import TrainingConfig
from ..episodes.first_problems import PlayedProblems, first_problems
from ..episodes.metrics import episode_metrics
from ..episodes.play import EVALUATION, Episode, play, rules_of
from ..episodes.probe import prompt_of
from ..losses.policy_gradient import PolicyGradientConfig
from ..problems.prepare import Problem, Problems, prepare_problems
from ..sampling.sampler import Sampler
from ..sessions import frozen
from .teacher import TeacherConfig, teacher_of

PROMPTS = 4
"""Prompts that the teacher continues when its vocabulary is compared with the student's."""
OF_REWARDS = ("env/all/reward/", "env/all/by_group/", "env/all/frac_unparsed")
"""What the names of metrics begin with that mean nothing where nothing is rewarded."""


class DistillationConfig(PlayedProblems, TeacherConfig, PolicyGradientConfig, TrainingConfig):
    """Which student to train, on which prompts, and by which teacher."""

    needs_reward = False

    on_policy: bool = True
    """Whether the student samples, and the teacher says how likely that is. Otherwise the teacher
    samples at the start of the run, and the student learns what it said."""
    samples: int = Field(default=4, ge=1)
    """Completions of each prompt."""

    @property
    def is_rewarded(self) -> bool:
        """Whether completions also have a reward, which is reported and not learned from."""
        return self.environment is not None or self.reward is not None

    @model_validator(mode="after")
    def _one_policy(self) -> Self:
        if self.test_temperature != 1 or (self.on_policy and self.temperature != 1):
            raise ValueError(
                "temperature and test_temperature must be 1 where the student samples: elsewhere "
                "log probabilities are those of another policy, and teacher_kl is not a divergence"
            )
        if self.on_policy and self.lora is not None and self.lora.dropout:
            raise ValueError("lora.dropout must be 0: the policy that samples has none")
        return self

    @model_validator(mode="after")
    def _off_policy(self) -> Self:
        if self.on_policy:
            return self
        foreign = PolicyGradientConfig.model_fields.keys() - {"loss_reduction"}
        if given := sorted(foreign & self.model_fields_set):
            raise ValueError(
                f"{given[0]} is of a policy gradient; with on_policy = false there is none"
            )
        if self.teacher_client is not None:
            raise ValueError("teacher_client cannot sample; with on_policy = false, give teacher")
        return self


class Teaching:
    """The teacher, the student's sampler, and the problems of a run.

    Args:
        kitchen: its adapters.
        config: the settings.
        stack: closes what is opened.
    """

    def __init__(self, kitchen: Kitchen, config: DistillationConfig, stack: ExitStack) -> None:
        self._kitchen, self._config, self._stack = kitchen, config, stack
        self._sampler = Sampler(kitchen, config)
        self.teacher = stack.enter_context(teacher_of(kitchen, config))

    def prepare(self, session: Any) -> Problems:
        """Return the problems, after the vocabularies were compared.

        Raises:
            ConfigurationError: the teacher has another vocabulary than the student.
            InvalidInput: an environment that does not work.
        """
        problems = prepare_problems(self._kitchen, session, self._config)
        self._stack.enter_context(closing(problems))
        self.rules = rules_of(self._kitchen, session, self._config, self._config.max_length)
        self._test, template = problems.test, self.rules.template
        prompts = [prompt_of(problem, template) for problem in first_problems(problems, PROMPTS)]
        self._probe = prompts[0]
        self.teacher.check_vocabulary(template.tokenizer, prompts)
        depends_on = {**problems.depends_on, "teacher": self.teacher.about}
        facts = {**problems.facts, **self.rules.facts}
        return replace(problems, depends_on=depends_on, facts=facts)

    def open_reference(self, client: TrainingClient) -> Any:
        """Return a session that keeps the student's starting weights, for a KL penalty."""
        return self._stack.enter_context(frozen(client, self._config.session()))

    def try_sampling(self, session: Any) -> None:
        """Sample a token with the student's weights, to find out whether the completer can."""
        self._sampler.try_completing(session, self._probe)

    def compare(
        self, session: Any, problems: Sequence[Problem], n: int, step: int
    ) -> tuple[list[list[Episode]], list[FloatArray], dict[str, float]]:
        """Let the student play and the teacher judge.

        Args:
            session: of the student.
            problems: what to play.
            n: how often each.
            step: the episodes are a function of it, the seed and the weights; `EVALUATION` where
                no step learns from them.

        Returns:
            The episodes of each problem; log p_student - log p_teacher of the sampled tokens of
            each episode, float32 `(S_i,)`; and the metrics of these.

        Raises:
            StaleWeights: the completer does not have the student's weights.
            AdapterError: a call failed.
        """
        model = self._sampler.synchronise(session, self._probe)
        params = SamplingParams(self._config.max_tokens, n=n, model=model)
        completer, seed = self._kitchen.completer, self._config.seed
        groups = play(completer, problems, params, self.rules, seed=seed, step=step)
        episodes = [*chain(*groups)]
        scores = self.teacher.logprobs([episode.tokens for episode in episodes])
        pairs = zip(episodes, scores, strict=True)
        gaps = [episode.logprobs - episode.of_sampled(score) for episode, score in pairs]
        metrics = {"teacher_kl": float(np.concatenate(gaps).mean(dtype=np.float64))}
        for name, value in episode_metrics(groups).items():
            if self._config.is_rewarded or not name.startswith(OF_REWARDS):
                metrics[name] = value
        return groups, gaps, metrics

    @property
    def agreement(self) -> Metrics:
        """What the last synchronisation of weights measured; see `Sampler`."""
        return self._sampler.metrics

    @property
    def allowed(self) -> float:
        """Nats by which the student's sampler and trainer may differ; see `Sampler`."""
        return self._sampler.allowed

    def evaluate(self, session: Any) -> Evaluation:
        """Compare both on the problems that are held out."""
        groups, _, metrics = self.compare(session, self._test, 1, EVALUATION)
        samples = [episode.sample for [episode] in groups]
        if not self._config.is_rewarded:
            samples = [replace(sample, reward=None) for sample in samples]
        return Evaluation({f"test/{name}": value for name, value in metrics.items()}, samples)
