"""Teachers: what another model says of tokens that a student has sampled."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np
from pydantic import model_validator

from ...calls.port import Port
from ...errors import AdapterError, ConfigurationError, CrucibleWarning, InvalidInput
from ...kitchen import Kitchen
from ...options.texts import Name
from ...ports import Completer, TrainingClient
from ...types import (
    Datum,
    FloatArray,
    IntArray,
    ModelInput,
    SamplingParams,
    SessionConfig,
    Tokenizer,
)
from ..config import WorkflowConfig
from ..runs import weights_of
from ..sessions import frozen

COMPARED = 4096
"""Token ids, at most, whose texts are compared where both tokenizers are known."""
SAMPLED = 16
"""Tokens of a completion whose text is compared where the teacher's tokenizer is not known, and of
the end of a prompt that it continues, so that it fits into any context."""


class TeacherConfig(WorkflowConfig):
    """Which model teaches. Its vocabulary must be the student's."""

    teacher_model: Name | None = None
    """Model that teaches: a name that the teacher's adapter knows, or the id of a run, which stands
    for its weights. If only this is given, the adapter `completer` serves it."""
    teacher: Completer | None = None
    """Completer that serves the teacher, by name or as a table such as
    { use = "torch", model = "Qwen/Qwen3-8B" }. It must be able to score."""
    teacher_client: TrainingClient | None = None
    """Training client that runs the teacher, in place of a completer."""

    @model_validator(mode="after")
    def _one_teacher(self) -> Self:
        if self.teacher is not None and self.teacher_client is not None:
            raise ValueError("teacher and teacher_client are two teachers; give one")
        if self.teacher is None and self.teacher_model is None:
            raise ValueError("there is no teacher; give teacher_model, teacher, or both")
        return self


class Teacher(Protocol):
    """Says how likely tokens are."""

    @property
    def about(self) -> dict[str, Any]:
        """What it says depends on, as plain data."""
        ...

    def logprobs(self, sequences: Sequence[IntArray]) -> list[FloatArray]:
        """Return the log probability of each token after those before it, in nats.

        Args:
            sequences: token ids, each int64 `(T,)`, T from 2.

        Returns:
            float32 `(T - 1,)` for each sequence.
        """
        ...

    def check_vocabulary(self, tokenizer: Tokenizer, prompts: Sequence[IntArray]) -> None:
        """Refuse a teacher for which token ids mean something else than for the student.

        Args:
            tokenizer: the student's.
            prompts: token ids that the student is asked, each int64 `(P,)`.

        Raises:
            ConfigurationError: the vocabularies differ.
        """
        ...


@contextlib.contextmanager
def teacher_of(kitchen: Kitchen, config: TeacherConfig) -> Iterator[Teacher]:
    """Yield the teacher that a configuration names, ready to score.

    Raises:
        ConfigurationError: its adapter cannot say how likely tokens are.
    """
    model = config.teacher_model
    if model is not None:
        model = weights_of(kitchen, model, "workflow.teacher_model")
    if config.teacher_client is None:
        yield ScoringTeacher(config.teacher or kitchen.completer, model)
        return
    assert model is not None
    with frozen(config.teacher_client, SessionConfig(model)) as session:
        yield ForwardTeacher(config.teacher_client, session, model)


class ScoringTeacher:
    """A teacher behind a completer that can score.

    Args:
        completer: the completer.
        model: the model that it is asked for; None is its default.
    """

    def __init__(self, completer: Completer, model: str | None) -> None:
        if not completer.supports("score"):
            raise ConfigurationError(
                f"workflow.teacher: the completer {completer.adapter!r} has no score, so it cannot "
                "say how likely the student's tokens are"
            )
        self.completer, self.model = completer, model

    @property
    def about(self) -> dict[str, Any]:
        return {"model": self.model}

    def logprobs(self, sequences: Sequence[IntArray]) -> list[FloatArray]:
        scores = self.completer.score([each.tolist() for each in sequences], self.model)
        return _checked(self.completer, sequences, scores)

    def check_vocabulary(self, tokenizer: Tokenizer, prompts: Sequence[IntArray]) -> None:
        """Its tokenizer is not known, so what it says itself is compared: the text of a few
        completions with what the student's tokenizer makes of their tokens. A vocabulary that only
        differs elsewhere is not found out.
        """
        last = tokenizer.vocab_size - 1
        try:
            self.logprobs([np.array([last, last])])
        except InvalidInput as error:
            raise _other_vocabulary(f"it refuses the student's token {last} ({error})") from error
        params = SamplingParams(SAMPLED, seed=0, model=self.model)
        ends = [prompt[-SAMPLED:].tolist() for prompt in prompts]
        for result in self.completer.complete_batch(ends, params):
            if isinstance(result, AdapterError):
                raise result
            if result.tokens is None:
                warnings.warn(
                    f"the completer {self.completer.adapter!r} returns no token ids, so it is not "
                    "verified that the teacher has the student's vocabulary",
                    CrucibleWarning,
                    stacklevel=2,
                )
                return
            if result.reasoning is not None:  # whose text the server has taken apart
                continue
            text = tokenizer.decode(result.tokens.tolist(), skip_special_tokens=True)
            if _letters(text) != _letters(result.text):
                raise _other_vocabulary(f"what is {result.text!r} to it is {text!r} to the student")


class ForwardTeacher:
    """A teacher in a session of a training client.

    Args:
        client: the training client.
        session: its session.
        model: the model of the session.
    """

    def __init__(self, client: TrainingClient, session: Any, model: str) -> None:
        if not client.supports("forward"):
            raise ConfigurationError(
                f"workflow.teacher_client: the training client {client.adapter!r} has no forward, "
                "so it cannot say how likely the student's tokens are"
            )
        self._client, self._session, self._model = client, session, model

    @property
    def about(self) -> dict[str, Any]:
        known = self._client.supports("get_info")
        return {**(self._client.get_info(self._session) if known else {}), "model": self._model}

    def logprobs(self, sequences: Sequence[IntArray]) -> list[FloatArray]:
        datums = [
            Datum(ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:]})
            for tokens in sequences
        ]
        outputs = self._client.await_(self._client.forward(self._session, datums)).outputs
        return _checked(self._client, sequences, [output["logprobs"] for output in outputs])

    def check_vocabulary(self, tokenizer: Tokenizer, prompts: Sequence[IntArray]) -> None:
        """The texts of token ids over the whole vocabulary are compared, up to 4096 of them."""
        own = self._client.helper("get_tokenizer")(self._session)
        if own.vocab_size != tokenizer.vocab_size:
            raise _other_vocabulary(
                f"it has {own.vocab_size:,} tokens, the student {tokenizer.vocab_size:,}"
            )
        step = max(1, own.vocab_size // COMPARED)
        for token in range(0, own.vocab_size, step):
            texts = own.decode([token]), tokenizer.decode([token])
            if texts[0] != texts[1]:
                raise _other_vocabulary(
                    f"token {token} is {texts[0]!r} to it and {texts[1]!r} to the student"
                )
        if own.eos_token_id != tokenizer.eos_token_id:
            raise _other_vocabulary(
                f"it ends with the token {own.eos_token_id}, the student with "
                f"{tokenizer.eos_token_id}"
            )


def _checked(
    port: Port, sequences: Sequence[IntArray], scores: Sequence[FloatArray]
) -> list[FloatArray]:
    expected = [(len(tokens) - 1,) for tokens in sequences]
    found = [score.shape for score in scores]
    if found != expected:
        raise AdapterError(
            f"the teacher {port.adapter!r} returned log probabilities of other shapes than the "
            "student's sequences have"
        )
    return list(scores)


def _letters(text: str) -> str:
    # Pieces of a character, and spaces at the ends of a completion, depend on how it is decoded.
    return "".join(text.replace("\ufffd", "").split())


def _other_vocabulary(how: str) -> ConfigurationError:
    return ConfigurationError(
        f"workflow.teacher: the teacher has another vocabulary than the student: {how}. Token ids "
        "of the student mean something else to it; choose a teacher with the student's tokenizer"
    )
