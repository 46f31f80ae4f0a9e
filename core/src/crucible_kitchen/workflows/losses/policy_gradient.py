"""The terms of a policy-gradient loss that belong to the sampled tokens of episodes.

Losses are sums over tokens of a ratio times an advantage (see `crucible_kitchen.losses`), so
whatever else multiplies the gradient of a token goes into its advantage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ...errors import ConfigurationError
from ...losses import LOSS_FUNCTIONS, loss_config
from ...ports import TrainingClient
from ...types import FloatArray, ForwardBackwardResult, Future
from ..algorithm import Measure
from ..config import WorkflowConfig
from ..episodes.play import Episode

T = TypeVar("T")
LossReduction: TypeAlias = Literal["token_mean", "sequence_mean", "sum"]


class PolicyGradientConfig(WorkflowConfig):
    """Which loss, and how it is reduced."""

    loss: Literal["importance_sampling", "ppo", "cispo"] = "importance_sampling"
    """The loss of a token; `ppo` and `cispo` clip the ratio of the policies."""
    clip_low_threshold: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Smallest ratio: 0.8 of `ppo` and 0 of `cispo` if unset."""
    clip_high_threshold: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest ratio: 1.2 of `ppo` and 4 of `cispo` if unset."""
    loss_reduction: LossReduction = "token_mean"
    """How a step's loss is reduced: a mean over tokens (DAPO), a mean over sequences of means over
    their tokens (GRPO), or a sum (Tinker, and Dr. GRPO up to a constant)."""
    importance_sampling_cap: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest weight of a token in truncated importance sampling, which corrects for a sampler of
    another precision or with older weights; off if unset. TRL and verl use 2."""
    kl_penalty: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """How much a departure from the starting weights, in nats, lowers the reward of a token. Above
    0 it takes a second session of the training client, which keeps these weights."""

    num_substeps: int = Field(default=1, ge=1)
    """Updates made with what a step sampled, each with an equal part of its groups; `batch_size`
    is a multiple of it."""

    def thresholds(self) -> dict[str, float]:
        """Return the complete configuration of the loss, so that a backend's own never applies."""
        names = ("clip_low_threshold", "clip_high_threshold")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return loss_config(self.loss, given)

    @model_validator(mode="after")
    def _parts_are_equal(self) -> Self:
        groups = getattr(self, "batch_size", self.num_substeps)  # of `TrainingConfig`
        if groups % self.num_substeps:
            raise ValueError(
                f"num_substeps is {self.num_substeps}, and batch_size = {groups} is not a multiple "
                "of it: an update learns from whole groups, as many as each other one"
            )
        return self

    @model_validator(mode="after")
    def _thresholds_are_of_the_loss(self) -> Self:
        for name in ("clip_low_threshold", "clip_high_threshold"):
            known = LOSS_FUNCTIONS[self.loss].config
            if getattr(self, name) is not None and name not in known:
                raise ValueError(f"{name} is of ppo and cispo; loss = {self.loss!r} clips nothing")
        found = self.thresholds()
        if found and found["clip_low_threshold"] > found["clip_high_threshold"]:
            raise ValueError("clip_low_threshold is above clip_high_threshold")
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """An episode with what multiplies the gradient of its sampled tokens.

    Args:
        episode: what was sampled, S tokens of it.
        advantages: float32 `(S,)`.
        logprobs: the denominator of the policy's ratio, nats, float32 `(S,)`.
    """

    episode: Episode
    advantages: FloatArray
    logprobs: FloatArray


def weighed(
    client: TrainingClient,
    session: Any,
    episodes: Sequence[tuple[Episode, FloatArray | float]],
    config: PolicyGradientConfig,
    reference: Any = None,
) -> tuple[list[Weighed], dict[str, float]]:
    """Return the episodes with the advantages of their tokens, and what was measured on the way.

    Args:
        client: the training client.
        session: its session, with the weights before the update.
        episodes: what was sampled, each with its advantage: of each sampled token, float32 `(S,)`,
            or one number for all of them.
        config: what else weighs on a token.
        reference: a session with the weights of the reference, for a KL penalty.
    """
    tokens = [np.full(len(each.logprobs), value, np.float32) for each, value in episodes]
    played = [episode for episode, _ in episodes]
    denominators = sampled = [episode.logprobs for episode in played]
    metrics: dict[str, float] = {}
    if config.kl_penalty:
        penalties, departure = kl_penalties(sampled, logprobs_of(client, reference, played))
        tokens = [a - config.kl_penalty * b for a, b in zip(tokens, penalties, strict=True)]
        metrics["kl_policy_base"] = departure
    if config.importance_sampling_cap is not None:
        denominators = logprobs_of(client, session, played)
        weights = truncated_weights(denominators, sampled, config.importance_sampling_cap)
        tokens = [a * b for a, b in zip(tokens, weights, strict=True)]
    return [*map(Weighed, played, tokens, denominators)], metrics


Update: TypeAlias = tuple[Sequence[Weighed], Future[ForwardBackwardResult]]


def updates(
    client: TrainingClient,
    session: Any,
    episodes: Sequence[Weighed],
    group_size: int,
    config: PolicyGradientConfig,
    allowed: float | None = None,
) -> Iterator[Measure]:
    """Submit the gradients of a step's updates, one by one; yield what measures those so far.

    Args:
        client: the training client.
        session: its session; an optimizer step follows each gradient.
        episodes: groups of `group_size` of them, one after another; an update has whole groups.
        group_size: episodes of a problem.
        config: the loss, and how many updates.
        allowed: nats by which sampler and trainer may differ in the mean before the first update;
            None where it has other weights than those that sampled.
    """
    submitted: list[Update] = []
    parts = [*in_parts(episodes, group_size, config.num_substeps)]
    for part in parts:
        share = len(part) * len(parts) / len(episodes)
        submitted.append((part, submit_update(client, session, part, config, share)))
        yield partial(policy_metrics, client, [*submitted], allowed)


def in_parts(episodes: Sequence[T], group_size: int, parts: int) -> Iterator[Sequence[T]]:
    """Yield `parts` parts of a step's episodes, each of whole groups; fewer where there are fewer
    groups.
    """
    groups = len(episodes) // group_size
    for places in np.array_split(np.arange(groups), min(parts, groups)):
        yield episodes[places[0] * group_size : (places[-1] + 1) * group_size]


def submit_update(
    client: TrainingClient,
    session: Any,
    part: Sequence[Weighed],
    config: PolicyGradientConfig,
    share: float,
) -> Future[ForwardBackwardResult]:
    """Submit the gradient of the loss of some episodes. A mean counts as much as their share of a
    step's, in units of an equal part: where groups were dropped, parts are not equal.
    """
    scales = loss_scales([len(each.logprobs) for each in part], config.loss_reduction)
    if config.loss_reduction != "sum":
        scales = scales * share
    datums = [
        each.episode.datum(advantages=each.advantages * scale, logprobs=each.logprobs)
        for each, scale in zip(part, scales.astype(np.float32), strict=True)
    ]
    return client.forward_backward(session, datums, config.loss, config.thresholds())


def policy_metrics(
    client: TrainingClient, updates: Sequence[Update], allowed: float | None = None
) -> dict[str, float]:
    """Await the updates of a step; return how far the policy is from the one that sampled.

    With d = log p_sampled - log p_trained of a token, p_trained before the update that learns from
    it, `optim/kl_sample_train_v1` is the mean of d and `optim/kl_sample_train_v2` that of d**2 / 2:
    two estimates of the KL divergence, in nats a token. `optim/entropy` is the mean of
    -log p_sampled. The names are those of the Tinker cookbook. `num_tokens` counts the tokens.

    Raises:
        ConfigurationError: before the first update, the two differ by more than `allowed` in the
            mean: the trainer's model has dropout, say.
    """
    sampled: list[FloatArray] = []
    trained: list[FloatArray] = []
    for part, future in updates:
        for each, output in zip(part, client.await_(future).outputs, strict=True):
            sampled.append(each.episode.logprobs)
            trained.append(each.episode.of_sampled(output["logprobs"]))
        if allowed is not None and len(sampled) == len(updates[0][0]):
            check_one_policy(client, sampled, trained, allowed)
    before = np.concatenate(sampled).astype(np.float64)
    difference = before - np.concatenate(trained)
    return {
        "optim/kl_sample_train_v1": float(difference.mean()),
        "optim/kl_sample_train_v2": float((difference**2).mean() / 2),
        "optim/entropy": float(-before.mean()),
        "num_tokens": len(before),
    }


def check_one_policy(
    client: TrainingClient,
    sampled: Sequence[FloatArray],
    trained: Sequence[FloatArray],
    allowed: float,
) -> None:
    """Check that the policy that is trained is the one that sampled.

    Args:
        client: the training client.
        sampled: the log probabilities of tokens as they were sampled, each `(S_i,)`.
        trained: those of the same tokens in the pass whose gradient is taken.
        allowed: nats by which they may differ in the mean.

    Raises:
        ConfigurationError: they differ by more.
    """
    difference = float(np.abs(np.concatenate(sampled) - np.concatenate(trained)).mean())
    if difference > allowed:
        raise ConfigurationError(
            f"the log probabilities of sampled tokens differ by {difference:.3f} nats in the mean "
            f"between the completer and forward_backward of the training client {client.adapter!r} "
            f"with the same weights, and {allowed:.3f} are allowed (workflow.sampler_tolerance): "
            "the policy that is trained is not the one that samples. Set the dropout of the model "
            "to 0; if it has none and it is the precision of the sampler, raise the tolerance"
        )


def logprobs_of(
    client: TrainingClient, session: Any, episodes: Sequence[Episode]
) -> list[FloatArray]:
    """Return the log probability, in nats, of the sampled tokens of each episode, `(S_i,)`, under
    the weights of a session.
    """
    outputs = client.await_(client.forward(session, [each.datum() for each in episodes])).outputs
    pairs = zip(episodes, outputs, strict=True)
    return [episode.of_sampled(output["logprobs"]) for episode, output in pairs]


def loss_scales(lengths: Sequence[int], reduction: LossReduction) -> NDArray[np.float64]:
    """Return what the advantages of each episode are multiplied with, `(N,)`, for a loss that is,
    of the sampled tokens,

    | reduction | the loss | source |
    | --- | --- | --- |
    | `token_mean` | their mean | DAPO, Yu et al. 2025 (arXiv 2503.14476) |
    | `sequence_mean` | the mean over episodes of their means | GRPO (arXiv 2402.03300) |
    | `sum` | their sum | Tinker; Dr. GRPO (arXiv 2503.20783) divides it by a constant |

    Args:
        lengths: the sampled tokens of each episode.
        reduction: one of these.
    """
    tokens = np.maximum(np.array(lengths, np.float64), 1)
    if reduction == "token_mean":
        return np.full(len(tokens), 1 / tokens.sum())
    if reduction == "sequence_mean":
        return 1 / (len(tokens) * tokens)
    return np.ones(len(tokens))


def kl_penalties(
    sampled: Sequence[FloatArray], reference: Sequence[FloatArray]
) -> tuple[list[FloatArray], float]:
    """Return what the advantage of each sampled token, `(S_i,)`, is lowered by for a departure from
    a reference, and the mean departure, which estimates KL(policy || reference) in nats a token.

    The departure of a token, log p_sampled - log p_reference, lowers its reward; its mean over the
    batch is the baseline.

    Args:
        sampled: the log probabilities that tokens were sampled with, each float32 `(S_i,)`.
        reference: those of the reference, of the same tokens.
    """
    departures = [here - there for here, there in zip(sampled, reference, strict=True)]
    mean = float(np.concatenate(departures).mean(dtype=np.float64))
    return [each - np.float32(mean) for each in departures], mean


def truncated_weights(
    trained: Sequence[FloatArray], sampled: Sequence[FloatArray], cap: float
) -> list[FloatArray]:
    """Return min(p_trained / p_sampled, cap) of each token, `(S_i,)`.

    Truncated importance sampling, Yao et al. 2025, "Your efficient RL framework secretly brings you
    off-policy RL training".

    Args:
        trained: the trainer's log probabilities before the update, each float32 `(S_i,)`.
        sampled: those that tokens were sampled with.
        cap: the largest weight.
    """
    pairs = zip(trained, sampled, strict=True)
    return [np.exp(np.minimum(here - there, np.float32(np.log(cap)))) for here, there in pairs]
