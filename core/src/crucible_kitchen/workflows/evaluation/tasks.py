"""What weights are evaluated on: rows with their log probabilities, and answers of a completer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ...chat import ChatTemplate
from ...errors import ConfigurationError, InvalidInput
from ...kitchen import Kitchen
from ...types import SamplingParams
from ..algorithm import Evaluation, Sample
from ..config import RowsConfig
from ..episodes.metrics import episode_metrics
from ..episodes.play import Rules, TurnsConfig, play_all
from ..episodes.probe import prompt_of
from ..episodes.spoken import as_text, play_spoken, spoken_metrics
from ..problems.prepare import Problem, Problems, ProblemsConfig, prepare_problems
from ..rows.examples import Conversation, RowReader, Shape
from ..rows.judge import BadRows, longest_input
from ..rows.loading import Loader, held_out, source_of, stored_rows
from ..rows.prepare import prepare_held_out
from ..runs import weights_of
from ..sampling.sampler import Sampler
from .answers import Answers, AnswersConfig
from .measures import Question, answered, mean_nll, mean_reward
from .statistics import interval, pass_at_k, wilson


class TaskConfig(ProblemsConfig, RowsConfig, AnswersConfig, TurnsConfig):
    """What to evaluate weights on: a data set with answers, or problems with a reward."""

    needs_reward = False

    max_tokens: int | None = Field(default=None, ge=1)
    """Longest completion, in tokens; if unset, the length of the longest answer of rows, 256 of
    problems."""
    samples: int = Field(default=1, ge=1)
    """Completions of each problem."""
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of sampling them; 0 is greedy."""
    pass_at: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Each k of pass@k, at most `samples`."""
    pass_reward: float = Field(default=1.0, allow_inf_nan=False)
    """Least reward of a sample that counts as right for pass@k."""

    @property
    def has_problems(self) -> bool:
        """Whether what is evaluated on has rewards, and not answers to compare with."""
        return self.environment is not None or self.reward is not None

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        what = "problems with a reward" if self.has_problems else "rows with answers"
        foreign = _OF_ANSWERS if self.has_problems else _OF_PROBLEMS
        if given := [name for name in foreign if name in self.model_fields_set]:
            raise ValueError(f"{given[0]} does not concern {what}: leave it out")
        if given := [name for name in _OF_TRAINING if name in self.model_fields_set]:
            raise ValueError(f"{given[0]} concerns training, and nothing is trained: leave it out")
        if self.pass_at and max(self.pass_at) > self.samples:
            raise ValueError(
                f"pass@{max(self.pass_at)} needs samples = {max(self.pass_at)}, or more"
            )
        return self


_OF_ANSWERS = (
    *("completion", "text_field", "train_on", "too_long", "exact_match", "ignore_thinking"),
    *("eval_batch_size", "render_cache"),
)
_OF_PROBLEMS = (
    *("as_chat", "answer_field", "samples", "temperature", "pass_at", "pass_reward", "max_turns"),
)
_OF_TRAINING = ("streaming", "shuffle_buffer", "check_rows", "batch_size")


class Task(Protocol):
    """What weights are evaluated on, loaded and checked.

    Attributes:
        depends_on: what the results depend on, as in `Prepared`.
        facts: what else the record is to hold.
    """

    @property
    def depends_on(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    @property
    def amounts(self) -> Mapping[str, int]:
        """How much is evaluated, by name."""
        ...

    def measure(self) -> Evaluation:
        """Evaluate."""
        ...


class RowsTask:
    """Rows through a training client: their NLL, and exact match where it is asked for."""

    def __init__(self, kitchen: Kitchen, config: TaskConfig, session: Any) -> None:
        self._kitchen, self._config, self._session = kitchen, config, session
        rows = prepare_held_out(kitchen, session, config)
        self._examples, self.depends_on, self.facts = rows.test, rows.depends_on, rows.facts
        tokens = sum(len(example.tokens) for example in rows.test)
        self.amounts = {"test_sequences": len(rows.test), "test_tokens": tokens}

    def measure(self) -> Evaluation:
        client, config = self._kitchen.training_client, self._config
        nll = mean_nll(client, self._session, self._examples, config.eval_batch_size)
        metrics = {"test/nll": nll}
        if not config.exact_match:
            return Evaluation(metrics)
        answers = Answers(self._kitchen, config, config.eval_batch_size)
        samples = answers.of(self._session, self._examples)
        return Evaluation({**metrics, **exact_metrics(samples), **answers.metrics}, samples)


class ProblemsTask:
    """Problems played with the weights of a session: what reward its samples get."""

    def __init__(self, kitchen: Kitchen, config: TaskConfig, session: Any) -> None:
        self._kitchen, self._config, self._session = kitchen, config, session
        self._problems, self._all = _chosen(kitchen, session, config)
        self.depends_on, self.facts = self._all.depends_on, self._all.facts
        count = len(self._problems)
        self.amounts = {"test_problems": count, "completions": count * config.samples}
        tokenizer = kitchen.training_client.helper("get_tokenizer")(session)
        template = ChatTemplate(tokenizer, config.chat_template_kwargs, date=config.template_date)
        limits = [n for n in (config.max_length, longest_input(tokenizer)) if n is not None]
        self._rules = Rules(template, config.max_turns, min(limits, default=None))

    def measure(self) -> Evaluation:
        config, sampler = self._config, Sampler(self._kitchen, self._config)
        probe = prompt_of(self._problems[0], self._rules.template)
        params = SamplingParams(
            config.max_tokens or 256,
            config.temperature,
            n=config.samples,
            model=sampler.synchronise(self._session, probe),
        )
        completer, seed = self._kitchen.completer, config.seed
        try:
            groups = play_all(completer, self._problems, params, self._rules, seed=seed)
        finally:
            self._all.close()
        samples = [episode.sample for group in groups for episode in group]
        rewards = np.array([[episode.reward for episode in group] for group in groups])
        metrics = reward_metrics(episode_metrics(groups), rewards, config)
        return Evaluation({**metrics, **sampler.metrics}, samples)


class SpokenTask:
    """Problems as conversations with a completer, without a training client."""

    def __init__(self, kitchen: Kitchen, config: TaskConfig) -> None:
        self._kitchen, self._config = kitchen, config
        self._problems, self._all = _chosen(kitchen, None, config)
        self._model = weights_of(kitchen, config.model, "workflow.model")
        self.depends_on = self._all.depends_on
        self.facts = {**self._all.facts, "evaluated": self._model}
        count = len(self._problems)
        self.amounts = {"test_problems": count, "completions": count * config.samples}

    def measure(self) -> Evaluation:
        config = self._config
        assert config.max_tokens is not None
        params = SamplingParams(
            config.max_tokens, config.temperature, n=config.samples, model=self._model
        )
        completer, turns = self._kitchen.completer, config.max_turns
        try:
            groups = play_spoken(completer, self._problems, params, turns, config.seed)
        finally:
            self._all.close()
        rewards = np.array([[episode.reward for episode in group] for group in groups])
        samples = [episode.sample for group in groups for episode in group]
        return Evaluation(reward_metrics(spoken_metrics(groups), rewards, config), samples)


def _chosen(
    kitchen: Kitchen, session: Any, config: TaskConfig
) -> tuple[Sequence[Problem], Problems]:
    """Return the problems to evaluate on, and all of them.

    Raises:
        ConfigurationError: there is no end of them.
    """
    problems = prepare_problems(kitchen, session, config)
    chosen = problems.test if config.evaluates else problems.train
    if not isinstance(chosen, Sequence):
        raise ConfigurationError(
            "workflow.test_size: the environment has problems without end; say how many"
        )
    return chosen, problems


def reward_metrics(
    metrics: Mapping[str, float], rewards: NDArray[np.float64], config: TaskConfig
) -> dict[str, float]:
    """Return metrics of episodes under `test/`, with the 95 % interval of the mean reward, and
    pass@k.

    Args:
        metrics: those of the episodes.
        rewards: of P problems with n samples each, `(P, n)`.
        config: which k, and which reward counts as right.
    """
    low, high = interval(rewards)
    found = {f"test/{name}": value for name, value in metrics.items()}
    found |= {"test/env/all/reward/total/low": low, "test/env/all/reward/total/high": high}
    right = (rewards >= config.pass_reward).sum(axis=1)
    for k in config.pass_at:
        each = [pass_at_k(config.samples, int(count), k) for count in right]
        found[f"test/pass@{k}"] = sum(each) / len(each)
    return found


class AnswersTask:
    """Conversations whose last answer a completer is asked for, without a training client."""

    def __init__(self, kitchen: Kitchen, config: TaskConfig) -> None:
        self._kitchen, self._config = kitchen, config
        where = held_out(config)
        rows, what = stored_rows(Loader(kitchen), where, "test"), str(source_of(where, "test"))
        fields = (config.prompt, config.completion, config.messages_field, config.text_field)
        reader, bad = RowReader(*fields), BadRows()
        self._questions: list[Question] = []
        for name, row in rows.read(slice(None)):
            try:
                self._questions.append(question(reader.read(row)))
            except InvalidInput as error:
                bad.add(name, error.reason)
        if bad.count:
            raise InvalidInput(bad.named(what))
        if not self._questions:
            raise InvalidInput(f"nothing to evaluate on: {what} has no rows")
        self._model = weights_of(kitchen, config.model, "workflow.model")
        self.depends_on = {"test": dict[str, Any](rows=len(rows), rows_sha256=rows.sha256())}
        self.facts = {"evaluated": self._model}
        self.amounts = {"completions": len(self._questions)}

    def measure(self) -> Evaluation:
        config = self._config
        assert config.max_tokens is not None
        params = SamplingParams(config.max_tokens, temperature=0.0, model=self._model)
        samples = answered(
            self._kitchen.completer,
            self._questions,
            params,
            config.eval_batch_size,
            config.ignore_thinking,
        )
        return Evaluation(exact_metrics(samples), samples)


def exact_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the share of exact answers with its 95 % interval, Wilson's."""
    share = mean_reward(samples)
    low, high = wilson(share, len(samples))
    return {
        "test/exact_match": share,
        "test/exact_match/low": low,
        "test/exact_match/high": high,
    }


def question(shape: Shape) -> Question:
    """Return the question that a row asks a completer: the conversation before its last answer.

    Raises:
        InvalidInput: it is another shape, or holds what a completer cannot be given.
    """
    if not isinstance(shape, Conversation):
        raise InvalidInput(
            "it is not a conversation, and only a training client has the tokenizer that makes "
            'tokens of it; leave out model_of = "completer"'
        )
    if shape.tools or shape.kwargs:
        raise InvalidInput(
            "it has tools or arguments of the chat template: no completer takes them"
        )
    *before, last = shape.messages
    if not before or last["role"] != "assistant":
        raise InvalidInput("its last message is not an answer of the assistant")
    prompt = [{"role": str(m["role"]), "content": str(m["content"])} for m in before]
    return Question(prompt, as_text(before), str(last["content"]))  # type: ignore[arg-type]
