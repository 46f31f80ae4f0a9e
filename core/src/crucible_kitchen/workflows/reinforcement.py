"""Group relative policy optimization, Shao et al. 2024 (arXiv 2402.03300)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from itertools import chain, compress
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from ..kitchen import Kitchen
from ..types import SamplingParams
from .algorithm import Evaluation, Measure, Prepared, TrainingResult
from .batches import in_batches
from .checks import check_training, steps_of, trial_session
from .config import TrainingConfig
from .episodes.ahead import Ahead, AheadConfig
from .episodes.first_problems import PlayedProblems, first_problems, show_problems, try_problems
from .episodes.metrics import episode_metrics
from .episodes.play import EVALUATION, Episode, play, rules_of
from .episodes.probe import prompt_of
from .foreign import POLICY_NAMES
from .loop import train
from .losses.advantages import group_advantages, mixed
from .losses.policy_gradient import PolicyGradientConfig, updates, weighed
from .planning.problems import plan as plan
from .problems.prepare import Problem, prepare_problems
from .sampling.sampler import Sampler, check_live_weights
from .sessions import frozen


class ReinforcementConfig(PlayedProblems, PolicyGradientConfig, AheadConfig, TrainingConfig):
    """What to train, on which problems, and how."""

    foreign_names = POLICY_NAMES

    group_size: int = Field(default=8, ge=2)
    """Episodes of each problem."""
    normalize_by_std: bool = False
    """Whether advantages are divided by the standard deviation of their group's rewards."""
    drop_constant_groups: bool = False
    """Whether groups whose rewards are all equal are left out of a step, as long as it has others:
    without a KL penalty they have no gradient, but count in means."""

    @model_validator(mode="after")
    def _sampler_and_trainer_have_one_policy(self) -> Self:
        if self.temperature != 1:
            raise ValueError(
                "temperature must be 1, where the log probabilities of sampler and trainer are "
                "equal; test_temperature is that of evaluations"
            )
        if self.lora is not None and self.lora.dropout:
            raise ValueError("lora.dropout must be 0: the policy that samples has none")
        return self


def reinforcement(kitchen: Kitchen, config: ReinforcementConfig) -> TrainingResult:
    """Make completions likelier that are rewarded more than others of the same problem.

    Metrics, one row a step, besides those of every loop (see `train`): those of the episodes under
    `env/all/` (see `episode_metrics`), those of the policy under `optim/` (see `policy_metrics`),
    `kl_policy_base` (nats a token, with a KL penalty), `sampler/logprob_diff` (nats, see `Sampler`)
    and `sampler/staleness` (steps). At evaluations `test/env/all/`.

    Raises:
        ConfigurationError: the kitchen's adapters cannot do what the configuration asks for.
        InvalidInput: an environment that does not work.
        StaleWeights: the completer has not the weights of the training client.
        AdapterError: a call failed, and restarts are used up.
    """
    check_live_weights(kitchen, "workflow.use")
    with ExitStack() as stack:
        return train(kitchen, "reinforcement", config, partial(Reinforcement, stack=stack))


class Reinforcement:
    """The advantage of an episode is its reward minus the mean of its group."""

    def __init__(self, kitchen: Kitchen, config: ReinforcementConfig, stack: ExitStack) -> None:
        self._kitchen, self._client, self._config = kitchen, kitchen.training_client, config
        self._sampler, self._stack = Sampler(kitchen, config), stack
        self.evaluates = config.evaluates

    def prepare(self, session: Any) -> Prepared[Problem]:
        config, enter = self._config, self._stack.enter_context
        problems = enter(closing(prepare_problems(self._kitchen, session, config)))
        self._test = problems.test
        self._rules = rules_of(self._kitchen, session, config, config.max_length)
        self._probe = prompt_of(first_problems(problems, 1)[0], self._rules.template)
        starting = frozen(self._client, config.session()) if config.kl_penalty else nullcontext()
        self._reference = enter(starting)
        batches = in_batches(problems.train, config.batch_size, config.seed)
        work, steps = partial(self._play, config.group_size, 1.0), steps_of(config, batches)
        self._ahead = enter(closing(Ahead(batches, work, config.max_staleness, steps)))
        trial = partial(self._sampler.try_completing, session, self._probe)
        facts = {**problems.facts, **self._rules.facts}
        return Prepared(batches, problems.depends_on, facts, trial)

    def _play(
        self, n: int, temperature: float, problems: Sequence[Problem], step: int, model: str
    ) -> list[list[Episode]]:
        completer, config = self._kitchen.completer, self._config
        params = SamplingParams(config.max_tokens, temperature, n=n, model=model)
        return play(completer, problems, params, self._rules, seed=config.seed, step=step)

    def submit(self, session: Any, batch: Sequence[Problem], step: int) -> Iterator[Measure]:
        client, config = self._client, self._config
        synchronise = partial(self._sampler.synchronise, session, self._probe)
        groups, staleness = self._ahead.take(batch, step, synchronise)
        metrics = {**episode_metrics(groups), **self._sampler.metrics}
        metrics["sampler/staleness"] = staleness
        rewards = np.array([[episode.reward for episode in group] for group in groups])
        if config.drop_constant_groups and (differ := mixed(rewards)).any():
            groups, rewards = [*compress(groups, differ)], rewards[differ]
        advantages = group_advantages(rewards, config.normalize_by_std)

        pairs = [*zip(chain(*groups), advantages.ravel(), strict=True)]
        learned, departure = weighed(client, session, pairs, config, self._reference)
        allowed, metrics = None if staleness else self._sampler.allowed, metrics | departure
        for measure in updates(client, session, learned, config.group_size, config, allowed):
            yield partial(lambda measured: metrics | measured(), measure)

    def evaluate(self, session: Any) -> Evaluation:
        self._ahead.wait()  # what samples has a reference that the next one makes invalid
        model = self._sampler.synchronise(session, self._probe)
        groups = self._play(1, self._config.test_temperature, self._test, EVALUATION, model)
        metrics = {f"test/{name}": value for name, value in episode_metrics(groups).items()}
        return Evaluation(metrics, [episode.sample for [episode] in groups])


def check(kitchen: Kitchen, config: ReinforcementConfig) -> Iterator[tuple[str, str]]:
    """Try what a run needs before its first step; yield what is in order, and how.

    Raises:
        CrucibleError: names what is not.
    """
    check_live_weights(kitchen, "workflow.use")
    with trial_session(kitchen, config) as session:
        yield from check_training(kitchen, config, session)
        yield from try_problems(kitchen, session, config)


def preview(kitchen: Kitchen, config: ReinforcementConfig, count: int) -> Iterator[str]:
    """Yield what the model is asked in the first `count` problems."""
    with trial_session(kitchen, config) as session:
        yield from show_problems(kitchen, session, config, count)
