"""Completions sampled from the weights that are being trained, as training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import AdapterError
from ..ports import Completer
from ..types import Completion, Datum, FloatArray, IntArray, ModelInput, SamplingParams
from .rows.rendering import Example


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """A prompt and one completion of it, as sampled: token ids and their log probabilities.

    Args:
        prompt: token ids, int64 `(P,)`, at least one.
        completion: C sampled tokens, at least one, and their `logprobs`.
    """

    prompt: IntArray
    completion: Completion

    @property
    def sampled(self) -> IntArray:
        """The sampled tokens, int64 `(C,)`."""
        assert self.completion.tokens is not None
        return self.completion.tokens

    @property
    def tokens(self) -> IntArray:
        """The prompt and its completion, int64 `(P + C,)`."""
        return np.concatenate([self.prompt, self.sampled])

    def datum(self, advantages: FloatArray | float) -> Datum:
        """Return it for a policy-gradient loss; the prompt's tokens have no advantage.

        Args:
            advantages: of each sampled token, float32 `(C,)`, or one number for all of them.
        """
        assert self.completion.logprobs is not None
        tokens = self.tokens
        inputs = {
            "logprobs": self._over_targets(self.completion.logprobs),
            "advantages": self._over_targets(advantages),
        }
        return Datum(ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:], **inputs})

    def example(self) -> Example:
        """Return it for supervised learning, which trains on the sampled tokens alone."""
        weights = np.zeros(len(self.tokens), np.float32)
        weights[len(self.prompt) :] = 1
        return Example(self.tokens, weights, len(self.prompt))

    def of_completion(self, per_target: FloatArray) -> FloatArray:
        """Return the part `(C,)` of an array over all targets, `(P + C - 1,)`, that belongs to the
        completion, such as the log probabilities that a training client returns.
        """
        return per_target[len(self.prompt) - 1 :]

    def _over_targets(self, values: FloatArray | float) -> FloatArray:
        whole = np.zeros(len(self.prompt) - 1 + len(self.sampled), np.float32)
        whole[len(self.prompt) - 1 :] = values
        return whole


def sample(
    completer: Completer, prompts: Sequence[IntArray], params: SamplingParams, seed: int, step: int
) -> list[list[Rollout]]:
    """Sample `params.n` completions of each prompt: a function of the weights, seed and step.

    Args:
        completer: where to sample; `params.model` names the weights.
        prompts: token ids, each int64 `(P,)`.
        params: how to sample; their seed is replaced and log probabilities are asked for.
        seed: the run's.
        step: the step that learns from the rollouts.

    Raises:
        AdapterError: a completion failed, or came without its tokens' log probabilities.
    """
    drawn = int(np.random.SeedSequence([seed, step]).generate_state(1)[0] >> 1)
    params = replace(params, seed=drawn, logprobs=True)
    results = completer.complete_batch([prompt.tolist() for prompt in prompts], params)
    rollouts: list[list[Rollout]] = []
    for place, prompt in enumerate(prompts):
        group = []
        for result in results[place * params.n : (place + 1) * params.n]:
            if isinstance(result, AdapterError):
                raise result
            if result.tokens is None or result.logprobs is None:
                raise AdapterError(
                    f"the completer {completer.adapter!r} returned a completion without token ids "
                    "or without their log probabilities, so that nothing can be learned from it"
                )
            group.append(Rollout(prompt, result))
        rollouts.append(group)
    return rollouts
