"""Problems: what a model is asked while it learns from rewards, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, overload

from pydantic import Field, model_validator

from ...configuration.chosen import ChosenEnvironment, ChosenReward
from ...environments import Observation
from ...environments.guarded import Guarded
from ...errors import ConfigurationError, InvalidInput
from ...kitchen import Kitchen
from ...options.texts import Name, Template
from ..batches import Batches
from ..config import ModelConfig, RowsConfig
from ..rows.loading import Loader, Purpose, size_of, source_of, stored_rows
from ..rows.stored import NumberedRow, StoredRows
from .pool import Source
from .rewards import Asking, RewardedRows, reader

HELD_OUT = 2**31
"""The first seed that an environment without end is evaluated on; those below are trained on."""
SHOWN = 3
"""Problems that a run's record shows, each with at most RECORDED characters."""
RECORDED = 4000


class ProblemsConfig(ModelConfig):
    """What the model is asked, and what its answers are rewarded for: an environment, or a data set
    of problems with a reward.
    """

    needs_reward: ClassVar[bool] = True
    """Whether a data set is nothing without a reward; a workflow that learns from something else
    sets it to False."""

    environment: ChosenEnvironment | None = Field(default=None, examples=["arithmetic"])
    """What the model acts in: a name, or a table such as { use = "arithmetic", largest = 20 }."""
    reward: ChosenReward | None = None
    """What a completion of a problem of `dataset` is worth: "final_answer", or a function
    (completion, row) as "module:function" or "file.py:function", which returns a number or a
    Step."""
    dataset: Name | None = None
    """Data set of problems: a file, folder or hub id that the dataset store knows."""
    dataset_name: Name | None = None
    """Configuration within the data set, where it has several."""
    dataset_revision: Name | None = None
    """Branch, tag or commit of the data set."""
    split: Name | None = "train"
    """Split to train on, or a part of it: ``train[:90%]``, ``train[1000:]``, ``train+extra``."""
    test_dataset: Name | None = None
    """Data set to evaluate on; `dataset` if unset and `test_split` is given."""
    test_split: Name | None = None
    """Split to evaluate on; a `test_dataset` without it must have a single split."""
    test_size: int | float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Number of problems to evaluate on; below 1, the fraction of them. Of an environment, its last
    problems, and as many more as belong together with them, such as a sum in its other order; of
    one without end, problems that are never trained on. Of a data set, the first rows of
    `test_dataset` or `test_split`; without either, random rows taken out of the others."""
    prompt: Template | None = None
    """Template of the prompt, over the fields of a row, such as `{question}\\n`; the field `prompt`
    if unset, which is a text or a list of messages."""
    messages_field: Name | None = None
    """Field that holds a conversation, which is asked without the answer at its end."""
    as_chat: bool = False
    """Whether a prompt that is text is asked as a user's message, through the chat template."""
    answer_field: Name = "answer"
    """Field with the right answer, for `reward = "final_answer"` and for people to see."""
    batch_size: int = Field(default=32, ge=1)
    """Problems in an optimizer step."""

    @property
    def evaluates(self) -> bool:
        """Whether there are problems to evaluate on."""
        given = (self.test_size, self.test_dataset, self.test_split)
        return any(each is not None for each in given)

    def required_ports(self) -> tuple[str, ...]:
        ports = super().required_ports()
        return ports if self.dataset is None else (*ports, "dataset_store")

    def rows(self) -> RowsConfig:
        """Return which rows of the data set are meant."""
        shared = RowsConfig.model_fields.keys() & ProblemsConfig.model_fields.keys()
        return RowsConfig(**{name: getattr(self, name) for name in shared})

    @model_validator(mode="after")
    def _an_environment_or_a_data_set(self) -> Self:
        if self.environment is not None:
            foreign = [*_OF_ROWS, "reward"]
            if given := [name for name in foreign if name in self.model_fields_set]:
                raise ValueError(
                    f"{' and '.join(given)} cannot be given with an environment, which has its own "
                    "problems and rewards"
                )
        elif self.dataset is None:
            reward = ' and reward, such as "final_answer"' if self.needs_reward else ""
            raise ValueError(f"give environment, or dataset{reward}")
        elif self.reward is None and self.needs_reward:
            raise ValueError(
                'dataset needs a reward for each answer: "final_answer", or "module:function"'
            )
        if self.prompt is not None and self.messages_field is not None:
            raise ValueError("prompt and messages_field say different things of one row; give one")
        if self.test_size is not None and self.test_size >= 1 and self.test_size % 1:
            raise ValueError("test_size is a whole number of problems, or a fraction below 1")
        return self


_OF_ROWS = (
    *("dataset", "dataset_name", "dataset_revision", "split", "test_dataset", "test_split"),
    *("prompt", "messages_field", "as_chat", "answer_field"),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Args:
        source: where it comes from.
        seed: which problem of the source it is; `environment().reset(seed)` begins it.
    """

    source: Source
    seed: int

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.source.name}, {self.source.called(self.seed)}"

    def environment(self) -> Guarded:
        """Return an environment to play it in, which the caller resets with the seed. It belongs to
        the caller until it is given to `release`; what it answers is checked.
        """
        return self.source.take()

    def release(self, environment: Guarded) -> None:
        """Give back an environment when the episode has ended, so that another can use it."""
        self.source.give_back(environment)

    @property
    def answer(self) -> str | None:
        """The right answer, where the environment knows it. It begins the problem to find out."""
        environment = self.environment()
        try:
            environment.reset(self.seed)
            return environment.answer
        finally:
            self.release(environment)


@dataclass(frozen=True, slots=True)
class Numbered(Sequence[Problem]):
    """The problems of some seeds."""

    source: Source
    seeds: range

    def __len__(self) -> int:
        return len(self.seeds)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> Numbered: ...
    def __getitem__(self, index: int | slice) -> Problem | Numbered:
        if isinstance(index, slice):
            return Numbered(self.source, self.seeds[index])
        return Problem(self.source, self.seeds[index])


@dataclass(frozen=True, slots=True)
class Endless:
    """Batches of problems without end: step k has the seeds k * size to (k + 1) * size - 1."""

    source: Source
    size: int

    @property
    def per_epoch(self) -> None:
        return None

    def between(self, start: int, stop: int) -> Generator[tuple[int, int, Numbered], None, None]:
        """Yield the epoch, which is 0, the step and the problems of each step."""
        for step in range(start, stop):
            seeds = range(step * self.size, (step + 1) * self.size)
            if seeds.stop > HELD_OUT:
                raise InvalidInput(
                    f"step {step} would train on the seeds from {HELD_OUT}, which are held out"
                )
            yield 0, step, Numbered(self.source, seeds)


@dataclass(frozen=True, slots=True)
class Problems:
    """What a run trains and evaluates on.

    Args:
        train: the problems, or, where there is no end of them, the batches.
        test: those to evaluate on, none of which is trained on; empty if the configuration asks
            for none.
        depends_on: what the record holds to refuse to continue the run with other problems.
        facts: what a run's record shows of them: counts, and the first prompts.
    """

    train: Batches[Problem] | Sequence[Problem]
    test: Sequence[Problem]
    depends_on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    sources: Sequence[Source] = ()

    def close(self) -> None:
        """Close the environments. Without a call they are closed when the problems are gone."""
        for source in self.sources:
            source.close()


def prepare_problems(kitchen: Kitchen, session: Any, config: ProblemsConfig) -> Problems:
    """Return the problems of a configuration, after the first of them were tried.

    Args:
        kitchen: its dataset store is read.
        session: the training client's. Problems do not depend on it so far.
        config: which problems.

    Raises:
        ConfigurationError: the settings do not fit the environment.
        InvalidInput: a row that cannot be asked, or an environment that does not work.
    """
    if config.environment is not None:
        problems = _of_environment(config, config.environment)
    else:
        problems = _of_rows(kitchen, config)
    train = problems.train
    first = train[:SHOWN] if isinstance(train, Sequence) else next(train.between(0, 1))[2][:SHOWN]
    shown = [_asked(problem) for problem in first]
    for problem in problems.test[:1]:
        _asked(problem)
    counts = {
        "train": len(train) if isinstance(train, Sequence) else None,
        "test": len(problems.test),
    }
    facts = {"problems": {**counts, **problems.facts}, "examples": shown}
    return replace(problems, facts=facts)


def _of_environment(config: ProblemsConfig, chosen: ChosenEnvironment) -> Problems:
    source = Source(chosen.name, chosen.make)
    environment = source.take()
    size, together = environment.size, environment.held_together
    problems = environment.version
    source.give_back(environment)
    depends_on = {
        "environment": {
            "name": chosen.name,
            "package": chosen.package,
            "version": chosen.version,
            "options": chosen.describe(),
            "size": size,
            **({} if problems is None else {"problems": problems}),
        }
    }
    wanted = config.test_size
    if size is None:
        if getattr(config, "max_steps", 1) is None:
            raise ConfigurationError(
                f"workflow.max_steps: the environment {chosen.name} has problems without end, so "
                "say how many steps to take"
            )
        if wanted is not None and wanted < 1:
            raise ConfigurationError(
                f"workflow.test_size: the environment {chosen.name} has problems without end, so "
                "give a number of them, not a fraction"
            )
        train: Endless | Numbered = Endless(source, config.batch_size)
        test = Numbered(source, range(HELD_OUT, HELD_OUT + int(wanted or 0)))
    else:
        trained = size if wanted is None else (size - size_of(wanted, size)) // together * together
        if trained <= 0:
            raise ConfigurationError(
                f"workflow.test_size: {wanted} leaves nothing to train on of the {size:,} problems "
                f"of the environment {chosen.name}"
            )
        train = Numbered(source, range(trained))
        test = Numbered(source, range(trained, size))
    return Problems(train, test, depends_on, sources=[source])


def _of_rows(kitchen: Kitchen, config: ProblemsConfig) -> Problems:
    loader, which = Loader(kitchen), config.rows()
    asking = Asking(
        config.prompt, config.messages_field, config.as_chat, config.answer_field, config.reward
    )
    purposes: list[Purpose] = ["train", "test"] if config.evaluates else ["train"]
    found: dict[str, Numbered] = {}
    stored: dict[str, StoredRows] = {}
    for purpose in purposes:
        rows, name = stored_rows(loader, which, purpose), str(source_of(which, purpose))
        if not len(rows):
            raise InvalidInput(f"nothing to learn from {name}: it has no rows")
        asking.check(rows, name)
        read = reader(rows)
        source = Source(name, _rows_of(read, len(rows), asking, name), _row_name(read))
        found[purpose] = Numbered(source, range(len(rows)))
        stored[purpose] = rows
    depends_on = {
        purpose: {"rows": len(rows), "rows_sha256": rows.sha256()}
        for purpose, rows in stored.items()
    }
    facts = {"also_in_train": stored["train"].shared(stored["test"])} if "test" in stored else {}
    test = found.get("test", Numbered(found["train"].source, range(0)))
    sources = [each.source for each in found.values()]
    return Problems(found["train"], test, depends_on, facts, sources)


def _rows_of(
    read: Callable[[int], NumberedRow], size: int, asking: Asking, name: str
) -> Callable[[], Guarded]:
    return lambda: Guarded(RewardedRows(read, size, asking), name)


def _row_name(read: Callable[[int], NumberedRow]) -> Callable[[int], str]:
    return lambda place: read(place)[0]


def _asked(problem: Problem) -> str:
    """Begin a problem; return what is asked, as text to show."""
    environment = problem.environment()
    try:
        return as_text(environment.reset(problem.seed))[:RECORDED]
    finally:
        problem.release(environment)


def as_text(observation: Observation) -> str:
    """Return an observation as text for people to see."""
    if isinstance(observation, str):
        return observation
    lines = [
        f"{each['role']}: {each.get('content') or ''}" if isinstance(each, Mapping) else str(each)
        for each in observation
    ]
    return "\n".join(lines) if any(isinstance(e, Mapping) for e in observation) else " ".join(lines)
