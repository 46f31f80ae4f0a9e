"""Distillation: a student learns what a teacher says.

On policy (Agarwal et al. 2023, arXiv 2306.13649; Gu et al. 2023, arXiv 2306.08543): the student
samples, and the advantage of each of its tokens is log p_teacher - log p_student, so that a step
lowers the reverse KL divergence KL(student || teacher) on what the student itself says. Off policy
(Kim and Rush 2016, arXiv 1606.07947): the teacher samples, and the student learns its completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any

from ..kitchen import Kitchen
from ..types import SamplingParams
from .algorithm import Measure, Metrics, Prepared, TrainingResult
from .batches import in_batches
from .checks import check_training, steps_of, trial_session
from .episodes.first_problems import show_problems, try_problems
from .evaluation.measures import negative_log_likelihood
from .loop import train
from .losses.policy_gradient import loss_scales, updates, weighed
from .planning.problems import plan as plan
from .problems.prepare import Problem
from .rows.rendering import Example
from .sampling.sampler import check_live_weights
from .teachers.samples import DIGEST, SaidBatches, TeacherSamples
from .teachers.teacher import ScoringTeacher
from .teachers.teaching import DistillationConfig, Teaching


def distillation(kitchen: Kitchen, config: DistillationConfig) -> TrainingResult:
    """Make a student say what a teacher would say.

    Metrics, one row a step, besides those of every loop (see `train`): on policy `teacher_kl`, the
    mean of log p_student - log p_teacher over the sampled tokens, which estimates the reverse KL
    divergence in nats a token; those of the policy (see `policy_metrics`) and of the episodes (see
    `episode_metrics`), rewards only where there are any; `sampler/logprob_diff` (nats, see
    `Sampler`). Off policy `train_mean_nll` (nats a token) and `num_tokens`. At evaluations, in both
    cases on what the student says, `test/teacher_kl` and `test/env/all/`.

    Raises:
        ConfigurationError: the kitchen's adapters cannot do what the configuration asks for, or
            the teacher has another vocabulary.
        InvalidInput: an environment that does not work.
        StaleWeights: the completer does not have the weights of the training client.
        AdapterError: a call failed, and restarts are used up.
    """
    check_live_weights(kitchen, "workflow.use")
    algorithm = OnPolicy if config.on_policy else OffPolicy
    with ExitStack() as stack:
        return train(kitchen, "distillation", config, partial(algorithm, stack=stack))


class OnPolicy:
    """The advantage of a token is log p_teacher - log p_student."""

    def __init__(self, kitchen: Kitchen, config: DistillationConfig, stack: ExitStack) -> None:
        self._client, self._config = kitchen.training_client, config
        self._teaching, self._reference = Teaching(kitchen, config, stack), None
        self.evaluates, self.evaluate = config.evaluates, self._teaching.evaluate

    def prepare(self, session: Any) -> Prepared[Problem]:
        problems = self._teaching.prepare(session)
        if self._config.kl_penalty:
            self._reference = self._teaching.open_reference(self._client)
        trial = partial(self._teaching.try_sampling, session)
        return Prepared(problems.train, problems.depends_on, problems.facts, trial)

    def submit(self, session: Any, batch: Sequence[Problem], step: int) -> Iterator[Measure]:
        client, config = self._client, self._config
        groups, gaps, metrics = self._teaching.compare(session, batch, config.samples, step)
        pairs = [*zip(chain(*groups), [-gap for gap in gaps], strict=True)]
        learned, departure = weighed(client, session, pairs, config, self._reference)
        metrics |= {**self._teaching.agreement, **departure}
        allowed = self._teaching.allowed
        for measure in updates(client, session, learned, config.samples, config, allowed):
            yield partial(lambda measured: {**metrics, **measured()}, measure)


class OffPolicy:
    """The cross-entropy of the teacher's completions."""

    def __init__(self, kitchen: Kitchen, config: DistillationConfig, stack: ExitStack) -> None:
        self._kitchen, self._client, self._config = kitchen, kitchen.training_client, config
        self._teaching = Teaching(kitchen, config, stack)
        self.evaluates, self.evaluate = config.evaluates, self._teaching.evaluate

    def prepare(self, session: Any) -> Prepared[Sequence[Example]]:
        config, problems = self._config, self._teaching.prepare(session)
        teacher, run_id = self._teaching.teacher, config.run_id
        assert isinstance(teacher, ScoringTeacher)  # of the settings
        assert run_id is not None  # of a run that has begun
        said = TeacherSamples(self._kitchen, run_id)
        params = SamplingParams(
            config.max_tokens, config.temperature, n=config.samples, model=teacher.model
        )
        batches = in_batches(problems.train, config.batch_size, config.seed)
        steps = batches.between(0, steps_of(config, batches))
        asked = {problem.seed: problem for _, _, batch in steps for problem in batch}
        said.sample(teacher, [*asked.values()], params, self._teaching.rules, config.seed)

        def trial() -> None:
            self._teaching.try_sampling(session)
            said.keep()

        depends_on = {**problems.depends_on, DIGEST: said.about}
        facts = {**problems.facts, "teacher_truncated": said.truncated}
        return Prepared(SaidBatches(batches, said.examples()), depends_on, facts, trial)

    def submit(self, session: Any, batch: Sequence[Sequence[Example]], step: int) -> Measure:
        examples = [*chain(*batch)]
        lengths = [int(example.trained_tokens) for example in examples]
        scales = loss_scales(lengths, self._config.loss_reduction)
        datums = [each.datum(scale) for each, scale in zip(examples, scales, strict=True)]
        future = self._client.forward_backward(session, datums)

        def measure() -> Metrics:
            nll = negative_log_likelihood(self._client, self._client.await_(future), examples)
            return {"train_mean_nll": nll / sum(lengths), "num_tokens": sum(lengths)}

        return measure


def check(kitchen: Kitchen, config: DistillationConfig) -> Iterator[tuple[str, str]]:
    """Try what a run needs before its first step; yield what is in order, and how.

    Raises:
        CrucibleError: names what is not.
    """
    check_live_weights(kitchen, "workflow.use")
    with trial_session(kitchen, config) as session, ExitStack() as stack:
        yield from check_training(kitchen, config, session)
        yield from try_problems(kitchen, session, config)
        Teaching(kitchen, config, stack).prepare(session)
        yield "teacher", "has the student's vocabulary"


def preview(kitchen: Kitchen, config: DistillationConfig, count: int) -> Iterator[str]:
    """Yield what the student is asked in the first `count` problems."""
    with trial_session(kitchen, config) as session:
        yield from show_problems(kitchen, session, config, count)
