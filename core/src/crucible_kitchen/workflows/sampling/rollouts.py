"""Completions sampled from the weights that are being trained, as training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import AdapterError
from ...ports import Completer
from ...types import Completion, Datum, FloatArray, IntArray, ModelInput, SamplingParams
from ..rows.rendering import Example


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
    results = complete(completer, prompts, replace(params, seed=drawn_seed(seed, step)))
    return [
        [Rollout(prompt, each) for each in results[place * params.n : (place + 1) * params.n]]
        for place, prompt in enumerate(prompts)
    ]


def complete(
    completer: Completer, prompts: Sequence[IntArray], params: SamplingParams
) -> list[Completion]:
    """Return `params.n` completions of each prompt, prompt-major, each with token ids and logprobs.

    Raises:
        AdapterError: a completion failed, or came without its tokens' log probabilities.
    """
    params = replace(params, logprobs=True)
    completions = []
    for result in completer.complete_batch([prompt.tolist() for prompt in prompts], params):
        if isinstance(result, AdapterError):
            raise result
        if result.tokens is None or result.logprobs is None:
            raise AdapterError(
                f"the completer {completer.adapter!r} returned a completion without token ids "
                "or without their log probabilities, so that nothing can be learned from it"
            )
        completions.append(result)
    return completions


def drawn_seed(*numbers: int) -> int:
    """Return a seed for sampling, 0 to 2**31 - 1: a function of the numbers alone."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)
