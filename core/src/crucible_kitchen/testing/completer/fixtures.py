"""The fixtures of a completer's tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from ...calls.synthetic import synthetic
from ...errors import Unsupported
from ...ports import Completer, TrainingClient
from ...types import SamplingParams
from ..conformance import Conformance


class CompleterFixtures(Conformance):
    """The fixtures of the suite."""

    tolerance: ClassVar[float] = 1e-3
    """By how many nats two computations of one log probability may differ."""
    max_in_flight: ClassVar[int] = 64
    """How many requests of a batch may be in flight at a time, where `in_flight` counts them."""

    @pytest.fixture
    def model(self) -> str | None:
        """The model to ask; None is the adapter's default."""
        return None

    @pytest.fixture
    def prompt(self) -> Sequence[Any] | str:
        """A conversation to which there are many answers, as messages, as JSON, or as the text of
        one message.
        """
        return "Write a few words about the sea."

    @pytest.fixture
    def token_prompt(self) -> Sequence[int] | str:
        """Token ids that the model has, as a list or as JSON. Tests of token ids are skipped where
        the adapter says that it cannot take them.
        """
        return [0, 1, 2, 3, 5, 8, 13, 21]

    @pytest.fixture
    def max_tokens(self) -> int | str:
        """How many tokens the completions of most tests have at most."""
        return 16

    @pytest.fixture
    def context_length(self, completer: Completer) -> int | str | None:
        """The most tokens that the model reads and writes, if it is known. By default what the
        adapter has as an option of this name.
        """
        bound: Any = completer
        while bound is not None:
            if (found := getattr(bound.options, "context_length", None)) is not None:
                return int(found)
            bound = bound.inner
        return None

    @pytest.fixture
    def missing_model(self, completer: Completer) -> str | None:
        """A model that does not exist; None where every one does, as with a synthetic completer."""
        return None if synthetic(completer) else "crucible-conformance/missing"

    @pytest.fixture
    def trainer(self) -> tuple[TrainingClient, Any] | None:
        """The paired training client, with a session whose weights it can publish. Optional."""
        return None

    @pytest.fixture
    def in_flight(self) -> Callable[[], int] | None:
        """A function that returns how many requests the backend has had in flight at most, so far.
        Optional.
        """
        return None

    # --- made of the fixtures above ---

    @pytest.fixture
    def sampling(self, max_tokens: int | str, model: str | None) -> SamplingParams:
        """Parameters without a seed, at temperature 1."""
        return SamplingParams(int(max_tokens), model=model)

    @pytest.fixture
    def greedy(self, sampling: SamplingParams) -> SamplingParams:
        return replace(sampling, temperature=0.0)

    @pytest.fixture
    def long(
        self,
        completer: Completer,
        asked: Any,
        greedy: SamplingParams,
        context_length: int | str | None,
    ) -> SamplingParams:
        """Greedy, eight times as long, if the context has room for it: long enough for most models
        to come to an end.
        """
        limit = 8 * greedy.max_tokens
        if context_length is not None:
            usage = completer.complete(asked, replace(greedy, max_tokens=1)).usage
            limit = min(limit, int(context_length) - (usage.prompt_tokens if usage else 64))
        return replace(greedy, max_tokens=limit)

    @pytest.fixture
    def conversation(
        self, completer: Completer, prompt: Sequence[Any] | str, sampling: SamplingParams
    ) -> Sequence[Any] | None:
        """The prompt as messages; None where the adapter cannot take them."""
        messages: Any = prompt
        if isinstance(prompt, str):
            parsed = json.loads(prompt) if prompt.lstrip()[:1] == "[" else None
            messages = parsed or [{"role": "user", "content": prompt}]
        return messages if _takes(completer, messages, sampling) else None

    @pytest.fixture
    def ids(
        self, completer: Completer, token_prompt: Sequence[int] | str, sampling: SamplingParams
    ) -> list[int] | None:
        """The prompt of token ids; None where the adapter cannot take them."""
        given = json.loads(token_prompt) if isinstance(token_prompt, str) else token_prompt
        tokens = [int(token) for token in given]
        return tokens if _takes(completer, tokens, sampling) else None

    @pytest.fixture
    def asked(self, conversation: Sequence[Any] | None, ids: list[int] | None) -> Any:
        """A prompt that the adapter can take, messages if it can choose."""
        found = conversation or ids
        assert found, "the adapter takes neither messages nor token ids"
        return found


def _takes(completer: Completer, prompt: Any, sampling: SamplingParams) -> bool:
    """Return whether the adapter can take prompts of this kind."""
    try:
        completer.complete(prompt, replace(sampling, max_tokens=1))
    except Unsupported:
        return False
    return True
