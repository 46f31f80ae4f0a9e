"""What the weights that are being trained answer to held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from ...kitchen import Kitchen
from ..algorithm import Metrics, Sample
from ..rows.rendering import Example
from ..sampling.sampler import Sampler, SamplerConfig
from .measures import exact_answers


class AnswersConfig(SamplerConfig):
    """Whether held-out prompts are completed, and how answers are compared."""

    exact_match: bool = False
    """Whether to complete the held-out prompts and count the answers that are exactly right."""
    ignore_thinking: bool = True
    """Whether think blocks, `<think>...</think>`, are left out of that comparison."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest completion while evaluating; the length of the longest answer if unset."""

    def required_ports(self) -> tuple[str, ...]:
        ports = super().required_ports()
        return (*ports, "completer") if self.exact_match else ports


class Answers:
    """Completes prompts greedily with the weights of a session.

    Args:
        kitchen: its completer and training client are used.
        config: how to complete, and to compare.
        batch_size: prompts in a call.
    """

    def __init__(self, kitchen: Kitchen, config: AnswersConfig, batch_size: int) -> None:
        self._kitchen, self._config, self._batch_size = kitchen, config, batch_size
        self._sampler = Sampler(kitchen, config)

    @property
    def metrics(self) -> Metrics:
        """What the last synchronisation of weights measured; see `Sampler`."""
        return self._sampler.metrics

    def of(
        self, session: Any, examples: Sequence[Example], max_tokens: int | None = None
    ) -> list[Sample]:
        """Return the answers to the examples that have one, with reward 1 for exactly theirs.

        Raises:
            InvalidInput: no example has an answer.
            StaleWeights: the completer does not have the weights of the session.
            AdapterError: a completion failed.
        """
        asked = (each for each in examples if each.prompt_length is not None)
        probe = next(asked, examples[0]).tokens
        return exact_answers(
            self._kitchen.completer,
            self._sampler.synchronise(session, probe),
            examples,
            self._kitchen.training_client.helper("get_tokenizer")(session),
            max_tokens=max_tokens or self._config.max_tokens,
            batch_size=self._batch_size,
            ignore_thinking=self._config.ignore_thinking,
        )

    def try_completing(self, session: Any, examples: Sequence[Example]) -> None:
        """Complete one token of one prompt, so that a completer that cannot fails early."""
        answered = [each for each in examples if each.prompt_length is not None]
        self.of(session, answered[:1] or examples[:1], max_tokens=1)
