"""Pairs of answers as token sequences, and how likely a model finds each of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from ..errors import ConfigurationError
from ..events import TrainingReference
from ..kitchen import Kitchen
from ..options.texts import Template
from ..ports import TrainingClient
from ..types import FloatArray, ForwardBackwardResult, Future, IntArray
from .config import RowsConfig
from .evaluation.measures import token_logprobs
from .rows.pairs import PairReader
from .rows.prepare import prepare_rows
from .rows.rendering import Example

Doubles: TypeAlias = npt.NDArray[np.float64]
"""What sums over hundreds of tokens are kept in: in float32 they lose the digits that pairs differ
in."""
Sides: TypeAlias = Sequence[Example]
"""2n sequences: of each of n pairs the chosen answer with its prompt, then the rejected one."""

_AHEAD = 4
"""Batches that are submitted before the oldest one is awaited."""
_EVERY = 0.25  # seconds between two events of progress


class PairsConfig(RowsConfig):
    """Which pairs to train and to evaluate on, and how rows hold them."""

    chosen: Template | None = None
    """Template of the better answer to `prompt`, over the fields of a row; the field `chosen` if
    unset. A template that is one field alone, such as `{better}`, may name messages."""
    rejected: Template | None = None
    """Template of the worse answer; the field `rejected` if unset."""

    @property
    def reader(self) -> PairReader:
        """How rows are read."""
        return PairReader(self.prompt, self.chosen, self.rejected)

    @model_validator(mode="after")
    def _is_of_pairs(self) -> Self:
        for name in ("completion", "messages_field", "text_field"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name} is of rows with one answer; a pair is read by prompt, chosen and "
                    'rejected, such as chosen = "{better}"'
                )
        if self.train_on == "all_tokens":
            raise ValueError('train_on = "all_tokens" is not of pairs: answers alone are compared')
        if self.rows_to_check != "all":
            raise ValueError(
                "the reference is computed for all pairs before the first step, so they cannot be "
                f"{'streamed' if self.streaming else 'rendered later'}; leave out "
                f"{'streaming' if self.streaming else 'check_rows'}"
            )
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A chosen and a rejected answer to one prompt.

    Args:
        sides: the chosen answer with its prompt, then the rejected one.
        reference: float64 `(2,)`, log p of each answer under the reference, in nats.
    """

    sides: tuple[Example, Example]
    reference: Doubles


@dataclass(frozen=True, slots=True, eq=False)
class Pairs(Sequence[Pair]):
    """Pairs whose sequences stay where they are. Each access makes a new `Pair`.

    Args:
        sides: 2n sequences: of each pair the chosen one, then the rejected one.
        reference: float64 `(n, 2)`, log p of each answer under the reference, in nats.
    """

    sides: Sides
    reference: Doubles

    def __len__(self) -> int:
        return len(self.reference)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        return Pair((self.sides[2 * place], self.sides[2 * place + 1]), self.reference[place])


@dataclass(frozen=True, slots=True)
class PreparedPairs:
    """What a run trains and evaluates on.

    Args:
        train: the pairs.
        test: the pairs to evaluate on; empty if the configuration names no rows for it.
        facts: what a run's record shows of them.
        depends_on: what the record holds to refuse to continue the run with other rows.
    """

    train: Pairs
    test: Pairs
    facts: Mapping[str, Any]
    depends_on: Mapping[str, Mapping[str, Any]]


def prepare_pairs(
    kitchen: Kitchen, session: Any, config: PairsConfig, batch_size: int
) -> PreparedPairs:
    """Open the data sets of a configuration and render their pairs; the reference is the model with
    the weights that the session has.

    Args:
        kitchen: its dataset store is read, and its training client computes the reference.
        session: the training client's.
        config: which rows, and how to read them.
        batch_size: pairs in an optimizer step.

    Raises:
        InvalidInput: rows that are not pairs, all named; or there is nothing to train or to
            evaluate on.
    """
    rows = prepare_rows(kitchen, session, config, batch_size, config.reader)
    assert isinstance(rows.train, Sequence)  # they are all rendered, see PairsConfig

    def with_reference(sides: Sides, purpose: str) -> Pairs:
        last, total = time.monotonic(), len(sides) // 2

        def report(done: int) -> None:
            nonlocal last
            if done == total or time.monotonic() - last >= _EVERY:
                event = TrainingReference(purpose=purpose, pairs=done, total=total)
                kitchen.observers.emit(event)
                last = time.monotonic()

        client, size = kitchen.training_client, config.eval_batch_size
        return Pairs(sides, log_likelihoods(client, session, sides, size, report))

    train, test = with_reference(rows.train, "train"), with_reference(rows.test, "test")
    facts = {**rows.facts, "test_prompts_also_in_train": _prompts_in_common(train, test)}
    return PreparedPairs(train, test, facts, rows.depends_on)


def _prompts_in_common(train: Pairs, test: Pairs) -> int:
    """Return how many pairs of `test` have a prompt that is also in `train`."""
    wanted = [side.prompt.tobytes() for side in test.sides[::2]]
    missing = set(wanted)
    missing.difference_update(pair.sides[0].prompt.tobytes() for pair in train if missing)
    return sum(prompt not in missing for prompt in wanted)


def log_likelihoods(
    client: TrainingClient,
    session: Any,
    sides: Sides,
    batch_size: int,
    report: Callable[[int], None] = lambda done: None,
) -> Doubles:
    """Return log p of the answers of pairs under the weights of a session, in nats.

    Args:
        client: a training client that supports `forward`.
        session: its session.
        sides: 2n sequences, the sides of n pairs one after the other.
        batch_size: pairs in one call.
        report: called with the number of pairs that are done, after each call.

    Returns:
        float64 `(n, 2)`, sums over the trained tokens of each sequence.
    """
    found = np.zeros((len(sides) // 2, 2))
    submitted: deque[tuple[IntArray, list[Example], Future[ForwardBackwardResult]]] = deque()
    done = 0

    def collect() -> None:
        nonlocal done
        places, examples, future = submitted.popleft()
        lengths = [len(example.tokens) - 1 for example in examples]
        found[places] = of_answers(token_logprobs(client, client.await_(future), lengths), examples)
        done += len(places)
        report(done)

    for places, examples in _batches(sides, batch_size):
        future = client.forward(session, [example.datum() for example in examples])
        submitted.append((places, examples, future))
        if len(submitted) > _AHEAD:
            collect()
    while submitted:
        collect()
    return found


def of_answers(logprobs: Sequence[FloatArray], sides: Sides) -> Doubles:
    """Return log p of the answers of n pairs, float64 `(n, 2)`, in nats.

    Args:
        logprobs: of each sequence the log probabilities of its tokens but the first.
        sides: 2n sequences, the sides of the pairs one after the other.
    """
    sums = [
        float(np.dot(side.weights[1:].astype(np.float64), each))
        for side, each in zip(sides, logprobs, strict=True)
    ]
    return np.array(sums).reshape(-1, 2)


def over_tokens(values: Doubles, sides: Sides) -> list[FloatArray]:
    """Return the value of each answer of n pairs, `(n, 2)`, at each of its tokens and 0 elsewhere:
    float32, of the shape of the sequence's log probabilities.
    """
    each = values.ravel().astype(np.float32)
    return [value * side.weights[1:] for value, side in zip(each, sides, strict=True)]


def _batches(sides: Sides, size: int) -> Iterator[tuple[IntArray, list[Example]]]:
    """Yield pairs of similar length, since they waste least padding: their places, their sides."""
    lengths = np.array([len(example.tokens) for example in sides]).reshape(-1, 2)
    order = np.argsort(lengths.max(axis=1), kind="stable")
    for start in range(0, len(order), size):
        places = order[start : start + size]
        yield places, [sides[2 * place + side] for place in places.tolist() for side in (0, 1)]


def lengths(sides: Sides) -> Doubles:
    """Return the number of tokens of the answers of n pairs, `(n, 2)`."""
    return np.array([side.trained_tokens for side in sides]).reshape(-1, 2)


def measured(rewards: Doubles, sides: Sides) -> dict[str, float]:
    """Return metrics of n pairs.

    `accuracy` is the share of pairs whose chosen answer has the higher reward, `margin` the mean
    difference of the two, `chosen_reward` and `rejected_reward` are their means, `num_pairs` is n,
    and `num_tokens` are the tokens of all answers.

    Args:
        rewards: `(n, 2)`, of each chosen and each rejected answer, in nats.
        sides: their 2n sequences.
    """
    chosen, rejected = rewards.mean(axis=0).tolist()
    return {
        "accuracy": prefers_chosen(rewards),
        "margin": chosen - rejected,
        "chosen_reward": chosen,
        "rejected_reward": rejected,
        "num_pairs": float(len(rewards)),
        "num_tokens": float(lengths(sides).sum()),
    }


def baselines(pairs: Pairs) -> dict[str, float]:
    """Return accuracies to compare that of a model with: `longer_accuracy`, of preferring the
    answer with more tokens, and `reference_accuracy`, of preferring the likelier one under the
    reference.
    """
    return {
        "longer_accuracy": prefers_chosen(lengths(pairs.sides)),
        "reference_accuracy": prefers_chosen(pairs.reference),
    }


def prefers_chosen(values: Doubles) -> float:
    """Return the share of n pairs whose first value is the higher one, of values `(n, 2)`."""
    return float((values[:, 0] > values[:, 1]).mean())


def check_can_compare(kitchen: Kitchen) -> None:
    """Check that a training client can say how likely an answer is.

    Raises:
        ConfigurationError: it cannot.
    """
    client = kitchen.training_client
    if not client.supports("forward"):
        raise ConfigurationError(
            f"adapters.training_client: {client.adapter!r} has no forward, which is needed for the "
            "log probabilities of pairs; choose another training client"
        )
