"""The completer with the weights that are being trained, checked at each synchronisation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from pydantic import Field

from ...errors import AdapterError, ConfigurationError, CrucibleWarning, Unsupported
from ...kitchen import Kitchen
from ...types import Datum, FloatArray, IntArray, ModelInput, SamplingParams
from ..algorithm import Metrics
from ..config import WorkflowConfig
from .canary import LARGEST_DIFFERENCE, Canary, Probe, Sighting
from .rollouts import complete

LONGEST_PROBE = 128
"""Tokens of a probe that are used."""
SAMPLED = 4
"""Completions of half a probe, where the completer cannot score a whole one."""


class SamplerConfig(WorkflowConfig):
    """How exactly the completer must have the weights that are being trained."""

    sampler_tolerance: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    """Largest mean difference, in nats, between the completer's log probabilities and the
    trainer's after a synchronisation of weights. The run stops above it, and where one of the two
    is seen to keep old weights."""


class SamplingConfig(SamplerConfig):
    """How to sample from the weights that are being trained."""

    max_tokens: int = Field(default=256, ge=1)
    """Longest completion, in tokens."""
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of sampling; 0 is greedy."""


def check_live_weights(kitchen: Kitchen, setting: str) -> None:
    """Refuse a training client whose weights no completer can use.

    Args:
        kitchen: its adapters.
        setting: what needs them, such as `workflow.exact_match`; begins the message.

    Raises:
        ConfigurationError: the client has no `save_weights_for_sampler`.
    """
    client = kitchen.training_client
    if not client.supports("save_weights_for_sampler"):
        raise ConfigurationError(
            f"{setting}: the training client {client.adapter!r} has no save_weights_for_sampler, "
            "so the completer cannot use the weights"
        )


class Sampler:
    """Publishes the weights of a session for the completer, and checks that it uses them.

    Attributes:
        metrics: what the last synchronisation measured: `sampler/logprob_diff`, the mean absolute
            difference, in nats, between the log probabilities of the completer and the trainer.
            Empty where these cannot be compared; a warning says so, once.
    """

    def __init__(self, kitchen: Kitchen, config: SamplerConfig) -> None:
        self._client, self._completer = kitchen.training_client, kitchen.completer
        self._tolerance = config.sampler_tolerance
        self._session: Any = None
        self._probe = np.empty(0, np.int64)
        self._warned = False
        self.metrics: Metrics = {}

    def synchronise(self, session: Any, probe: IntArray) -> str:
        """Publish the weights as they are; compare what the completer and the trainer say of them.

        Args:
            session: a session of the training client.
            probe: token ids, int64 `(T,)`, at least one, of which the first 128 are used; the same
                at each call. Of a completer that cannot score, completions of its first half are
                compared.

        Returns:
            The reference of the weights, for `SamplingParams.model`.

        Raises:
            StaleWeights: the completer and the trainer do not have the same weights.
            AdapterError: a call failed.
        """
        probe = probe[:LONGEST_PROBE] if len(probe) > 1 else np.repeat(probe, 2)
        model = self._client.save_weights_for_sampler(session)
        if session is not self._session or not np.array_equal(probe, self._probe):
            # A session that was restarted has other weights, which are no sign of anything.
            self._canary = Canary(self._tolerance, self._completer.adapter, self._client.adapter)
            self._session, self._probe = session, probe
        said = self._said(probe, model)
        if said is None:
            self.metrics = {}
            self._warn()
        else:
            seen, logprobs = said
            now = Sighting(seen, logprobs, self._forward(seen))
            self.metrics = {"sampler/logprob_diff": now.difference}
            self._canary.check(now, self._forward)
        return model

    @property
    def allowed(self) -> float:
        """Nats by which the log probabilities of sampled tokens and the trainer's may differ in the
        mean: the tolerance, and what they were last seen to differ by.
        """
        seen = self.metrics.get("sampler/logprob_diff", 0.0)
        return max(self._tolerance, LARGEST_DIFFERENCE) + seen

    def try_completing(self, session: Any, prompt: IntArray) -> None:
        """Sample one token, so that a completer that cannot is found before training.

        Args:
            session: a session of the training client.
            prompt: token ids, int64 `(T,)`; the probe as well.

        Raises:
            AdapterError: it cannot, or returns no token ids or no log probabilities.
        """
        model = self.synchronise(session, prompt)
        complete(self._completer, [prompt], SamplingParams(1, model=model))

    def _forward(self, probe: Probe) -> FloatArray:
        """Return the trainer's log probabilities of the compared tokens."""
        datums = [
            Datum(ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:]})
            for tokens in probe.sequences
        ]
        outputs = self._client.await_(self._client.forward(self._session, datums)).outputs
        both = zip(outputs, probe.counts, strict=True)
        return np.concatenate([output["logprobs"][-count:] for output, count in both])

    def _said(self, tokens: IntArray, model: str) -> tuple[Probe, FloatArray] | None:
        """Return a probe with the completer's log probabilities; None where it returns none."""
        if not self._client.supports("forward"):
            return None
        if self._completer.supports("score"):
            try:
                [logprobs] = self._completer.score([tokens.tolist()], model)
                return Probe([tokens], [len(tokens) - 1]), logprobs
            except Unsupported:  # by the server behind it
                pass
        return self._sampled(tokens, model)

    def _sampled(self, tokens: IntArray, model: str) -> tuple[Probe, FloatArray] | None:
        prompt = tokens[: (len(tokens) + 1) // 2]
        room = len(tokens) - len(prompt)  # so that the sequence is no longer than the probe
        params = SamplingParams(room, seed=0, logprobs=True, model=model)
        sequences: list[IntArray] = []
        logprobs: list[FloatArray] = []
        for result in self._completer.complete_batch([prompt.tolist()] * SAMPLED, params):
            if isinstance(result, Unsupported):
                return None
            if isinstance(result, AdapterError):
                raise result
            if result.tokens is None or result.logprobs is None or not len(result.tokens):
                return None
            sequences.append(np.concatenate([prompt, result.tokens]))
            logprobs.append(result.logprobs)
        return Probe(sequences, [len(each) for each in logprobs]), np.concatenate(logprobs)

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            lacks = (
                f"the completer {self._completer.adapter!r} returns no log probabilities"
                if self._client.supports("forward")
                else f"the training client {self._client.adapter!r} has no forward"
            )
            warnings.warn(
                f"it is not verified that the completer has the weights that are trained: {lacks}",
                CrucibleWarning,
                stacklevel=3,
            )
