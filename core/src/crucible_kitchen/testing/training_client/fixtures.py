"""The fixtures of a training client's tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import pytest

from ...calls.port import Port
from ...errors import SessionFailed
from ...ports import TrainingClient
from ...types import FloatArray, LoraConfig, SessionConfig
from ..conformance import Conformance
from .bench import Bench, datum

Paused: TypeAlias = Callable[[Any], contextlib.AbstractContextManager[None]]
Score: TypeAlias = Callable[[Sequence[Sequence[int]], str], Sequence[FloatArray]]
BreakSession: TypeAlias = Callable[[Any], list[Any]]


class TrainingClientFixtures(Conformance):
    """The fixtures of the suite."""

    labels: ClassVar[tuple[str, ...]] = (
        "",
        "plain",
        "step 10",
        "a/b/c",
        "../outside",
        "/absolute",
        ".hidden.",
        "naïve-Übung-数据-🙂",
        "percent%20and%2F",
        "[bracket]*{brace}?",
        "quote'and\"and`",
        "back\\slash:colon",
        "two\nlines\t",
        "nul\0",
        "long" * 100,
    )
    """What labels of checkpoints may end with."""

    @pytest.fixture
    def model(self) -> str:
        """The model to be trained, without dropout; a small one will do. Token ids 0 to 31 are
        used.
        """
        return "any"

    @pytest.fixture
    def lora_rank(self) -> int | str | None:
        """The rank of the low-rank update to be trained. None, the default, trains every weight."""
        return None

    @pytest.fixture
    def unknown_model(self) -> str:
        """The name of a model that does not exist. By default it looks like a path."""
        return "./conformance-no-such-model"

    @pytest.fixture
    def vocab_size(self) -> int | str | None:
        """How many tokens the model's vocabulary has. Optional."""
        return None

    @pytest.fixture
    def max_length(self) -> int | str | None:
        """The longest input that the model reads, in tokens. Optional."""
        return None

    @pytest.fixture
    def learning_rate(self) -> float | str:
        """A rate at which ten steps on three short texts lower their loss, and one step changes
        log probabilities by 0.001 at least. The default suits a tiny model.
        """
        return 1e-2

    @pytest.fixture
    def tolerance(self) -> float | str:
        """The relative error of a log probability. The default is that of float32; a backend that
        computes in bfloat16 needs 1e-2.
        """
        return 1e-5

    @pytest.fixture
    def paused(self) -> Paused | None:
        """A function that takes a session and returns a context in which none of its operations
        finishes. Optional.
        """
        return None

    @pytest.fixture
    def score(self) -> Score | None:
        """The `score` of a completer that is paired with the client. Optional."""
        return None

    @pytest.fixture
    def break_session(self, bench: Bench) -> BreakSession:
        """A function that submits operations to a session, one of which fails, and returns their
        futures. By default it is a step with an infinite gradient: the logprob of a sampled token
        is recorded as -10,000.
        """

        def break_it(session: Any) -> list[Any]:
            exploding = datum([1, 2], logprobs=[-1e4], advantages=[1.0])
            futures: list[Any] = [
                bench.client.forward_backward(session, [exploding], "importance_sampling")
            ]
            # Whether an infinite loss fails the pass itself is the backend's choice.
            with contextlib.suppress(SessionFailed):
                futures.append(bench.client.optim_step(session, bench.learning_rate))
            return futures

        return break_it

    @pytest.fixture
    def bench(
        self,
        training_client: TrainingClient,
        model: str,
        lora_rank: int | str | None,
        vocab_size: int | str | None,
        learning_rate: float | str,
        tolerance: float | str,
    ) -> Iterator[Bench]:
        """The bench, made of the other fixtures. Not to be overridden."""
        lora = None if lora_rank is None else LoraConfig(rank=int(lora_rank))
        bench = Bench(
            client=training_client,
            config=SessionConfig(model, lora=lora),
            learning_rate=float(learning_rate),
            tolerance=float(tolerance),
            tokens=32 if vocab_size is None else min(32, int(vocab_size)),
        )
        yield bench
        bench.clean()

    def _adapter(self, fixtures: Mapping[str, Any]) -> Port:
        client: Port = fixtures["bench"].client
        return client
