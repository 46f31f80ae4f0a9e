"""The values that travel through the ports.

Frozen, slotted dataclasses; tensors are NumPy arrays. A class whose fields hold arrays
compares by identity (`eq=False`), because `==` on arrays has no single truth value.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    Protocol,
    SupportsFloat,
    TypeAlias,
    TypedDict,
    TypeVar,
)

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InvalidInput

T_co = TypeVar("T_co", covariant=True)

IntArray: TypeAlias = NDArray[np.int64]
"""An int64 array, such as token ids."""
FloatArray: TypeAlias = NDArray[np.float32]
"""A float32 array, such as log probabilities."""
Array: TypeAlias = NDArray[Any]
"""An array of any dtype."""


class Future(Generic[T_co]):
    """What a training operation returns at once; pass it to `TrainingClient.await_`.

    Only type checkers see this class. An adapter may return any object.
    """


# --- model input -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTextChunk:
    """A run of token ids.

    Args:
        tokens: int64, shape `(n,)`; any sequence of integers is converted.
    """

    tokens: IntArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", _int64(self.tokens, "tokens"))

    @property
    def length(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class ImageChunk:
    """An encoded image inside a prompt.

    Args:
        data: the bytes of the image file.
        format: its encoding.
        expected_tokens: how many positions it takes in the model's input.
    """

    data: bytes
    format: Literal["png", "jpeg", "webp"]
    expected_tokens: int

    @property
    def length(self) -> int:
        return self.expected_tokens


Chunk: TypeAlias = EncodedTextChunk | ImageChunk


@dataclass(frozen=True, slots=True, eq=False)
class ModelInput:
    """What a model reads: chunks of text and images, in order."""

    chunks: tuple[Chunk, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunks", tuple(self.chunks))

    @classmethod
    def from_ints(cls, tokens: ArrayLike) -> ModelInput:
        """Make an input of text alone from token ids."""
        return cls((EncodedTextChunk(_int64(tokens, "tokens")),))

    def to_ints(self) -> list[int]:
        """Return the token ids.

        Raises:
            InvalidInput: there is an image, which has no token ids.
        """
        ids: list[int] = []
        for chunk in self.chunks:
            if not isinstance(chunk, EncodedTextChunk):
                raise InvalidInput("this input holds an image, which has no token ids")
            ids.extend(chunk.tokens.tolist())
        return ids

    @property
    def length(self) -> int:
        """The number of positions, images counted with their `expected_tokens`."""
        return sum(chunk.length for chunk in self.chunks)


@dataclass(frozen=True, slots=True, eq=False)
class Datum:
    """One training example.

    Args:
        model_input: the N positions that the model reads, `sequence[:-1]`.
        loss_fn_inputs: per-token arrays of shape `(N,)`, image positions included (weight 0).
            `target_tokens` (integers) is `sequence[1:]`; `weights` (float32) is 0 where a token
            does not count, and may be negative. Only the inputs that the loss function names
            are allowed: see `crucible_kitchen.losses`.
    """

    model_input: ModelInput
    loss_fn_inputs: Mapping[str, Array]


# --- training ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Low-rank adaptation, Hu et al. 2021 (arXiv 2106.09685).

    Args:
        rank: the inner dimension r of each update.
        alpha: the update is scaled by `alpha / rank`.
        dropout: probability of dropping an input of an update while training.
        targets: which projections are adapted: "attn" and "mlp" stand for those inside and outside
            the attention of each layer, experts of a mixture included, and "unembed" for the output
            layer. Anything else is the end of a module's name, such as "q_proj" or
            "mixer.in_proj"; it is `Unsupported` if the backend does not take such names, or the
            model has no such module.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}  # for configurations that hold one

    rank: int = 32
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("attn", "mlp")

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        if self.rank < 1:
            raise InvalidInput(f"lora rank must be at least 1, not {self.rank}")
        if not 0 <= self.dropout < 1:
            raise InvalidInput(f"lora dropout must be in [0, 1), not {self.dropout}")


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What to train.

    Args:
        model: a name or path that the adapter knows.
        revision: a branch, tag or commit of the model; None is the adapter's default.
        lora: train a low-rank update; None trains every weight.
        seed: seeds everything random in the session: new weights, dropout.
        from_checkpoint: a reference from `save_checkpoint` to start from.
        with_optimizer: also take the optimizer's state from that checkpoint.
        trainable: False for a model that is only evaluated (a reference, a teacher).
        max_length: the longest input in tokens; None is the model's own limit.
    """

    model: str
    revision: str | None = None
    lora: LoraConfig | None = None
    seed: int = 0
    from_checkpoint: str | None = None
    with_optimizer: bool = False
    trainable: bool = True
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class AdamParams:
    """AdamW, Loshchilov and Hutter 2019 (arXiv 1711.05101). Sent whole with every step,
    because the defaults of backends differ.

    Args:
        beta1, beta2: decay of the first and second moment.
        eps: added to the root of the second moment.
        weight_decay: decoupled: each step multiplies the weights by `1 - lr * weight_decay`.
        grad_clip_norm: the largest L2 norm of the gradient over all parameters; 0 turns it off.

    Raises:
        InvalidInput: a value is out of its range.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}  # for configurations that hold one

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be in [0, 1), not {getattr(self, name)}")
        for name in ("eps", "weight_decay", "grad_clip_norm"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise InvalidInput(f"{name} must be finite and not negative, not {value}")


@dataclass(frozen=True, slots=True, eq=False)
class ForwardBackwardResult:
    """The outcome of `forward_backward` and `forward`.

    Args:
        loss: the **sum** over the tokens of all datums, never a mean.
        outputs: one mapping per datum, in order; `logprobs` is float32 of shape `(N_i,)`, in nats.
            Where every loss input is 0, it is the logprob or exactly 0.0.
        metrics: further numbers that the backend reports.
    """

    loss: float
    outputs: Sequence[Mapping[str, Array]]
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OptimStepResult:
    """The outcome of `optim_step`.

    Args:
        grad_norm: the L2 norm of the accumulated gradient before clipping, if it is known.
        metrics: further numbers that the backend reports.
    """

    grad_norm: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Tokenizer(Protocol):
    """What `helper("get_tokenizer")(session)` returns: a part of Hugging Face's protocol.

    It may also have these attributes, None or absent if unknown: `chat_template`, the source of the
    template, None if the model has none; `model_max_length`, the longest input of the session's
    model in tokens; `model_vocab_size`, the number of tokens that the model knows.

    Two more make rows faster to render: `encode_batch(texts)`, which returns the ids of each text,
    without special tokens; and `words_apart`, True if a text may be cut before a space between two
    ASCII letters, so that the ids of its parts are those of the whole.
    """

    @property
    def eos_token_id(self) -> int | None: ...

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...

    def apply_chat_template(self, messages: Sequence[Message], **kwargs: Any) -> Any:
        """Return the token ids of a conversation, `list[int]`.

        `add_generation_prompt=True` appends what the model sees before its own answer. Workflows
        also ask for the text (`tokenize=False`), and pass `tools`, JSON schemas, and anything else
        that the template takes; a tokenizer may ignore these and return the ids.
        """
        ...


# --- completion ----------------------------------------------------------------------------


class Message(TypedDict):
    """One turn of a conversation. `content` is text."""

    role: str
    content: str


Prompt: TypeAlias = "Sequence[Message] | Sequence[int] | ModelInput"
"""A conversation, token ids, or a `ModelInput`. Token ids in, token ids out: they are
never turned into text and back."""

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]
"""Why a completion ended: at a stop, at `max_tokens`, with a call of tools, or by a filter."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample.

    Args:
        max_tokens: the most tokens to generate, at least 1.
        temperature: 0 is greedy.
        top_p: sample from the smallest set of tokens that holds this probability, in (0, 1].
        top_k: sample from this many most likely tokens; -1 is all.
        stop: strings or token ids, not mixed, at which to stop besides the model's end token.
            None stops only at that token, () at nothing, not even there.
        seed: completion k of a call is sampled with `seed + k`; None is unpredictable.
        n: completions per prompt.
        logprobs: whether to return the log probability, in nats, of each generated token.
        model: which weights; None is the adapter's default.

    Raises:
        InvalidInput: a value is out of its range.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop: tuple[str, ...] | tuple[int, ...] | None = None
    seed: int | None = None
    n: int = 1
    logprobs: bool = False
    model: str | None = None

    def __post_init__(self) -> None:
        stop: Any = self.stop
        if stop is not None:  # one string, or a list, is what people write
            stop = (stop,) if isinstance(stop, str) else tuple(stop)
            object.__setattr__(self, "stop", stop)
        for ok, problem in (
            (self.max_tokens >= 1, f"max_tokens must be at least 1, not {self.max_tokens}"),
            (self.temperature >= 0, f"temperature must not be negative: {self.temperature}"),
            (0 < self.top_p <= 1, f"top_p must be in (0, 1], not {self.top_p}"),
            (self.top_k == -1 or self.top_k >= 1, f"top_k must be -1 or positive: {self.top_k}"),
            (self.n >= 1, f"n must be at least 1, not {self.n}"),
            (
                len({isinstance(s, str) for s in self.stop or ()}) < 2,
                "stop mixes strings and token ids",
            ),
            (all(s != "" for s in self.stop or ()), "stop holds an empty string"),
        ):
            if not ok:
                raise InvalidInput(problem)


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens a completion read and wrote."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """One sampled answer.

    Args:
        text: what was generated, without the stop string and without special tokens; only the
            answer, if the server separates it from the reasoning.
        tokens: int64 `(n,)`, the stop token included, or None if the server does not return them.
        logprobs: float32 `(n,)`, nats, finite, of the same length; None if not asked for.
        finish_reason: why it ended.
        usage: token counts, if known.
        reasoning: what was generated before the answer, if the server separates it; its tokens are
            among `tokens`. Otherwise None, and a model's reasoning is part of `text`.
    """

    text: str
    tokens: IntArray | None
    logprobs: FloatArray | None
    finish_reason: FinishReason
    usage: Usage | None = None
    reasoning: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CompletionChunk:
    """A piece of a streamed answer. The last one carries `finish_reason`."""

    text: str
    tokens: IntArray | None = None
    logprobs: FloatArray | None = None
    finish_reason: FinishReason | None = None
    reasoning: str | None = None


# --- metrics -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """One recorded number.

    Args:
        run_id: the run that it belongs to.
        metric: its name, such as `train_mean_nll`.
        value: any float, including NaN and infinities.
        step: the training step, or None for a number outside the steps.
        timestamp: when it was recorded; aware, UTC.
        metadata: anything JSON can hold.
    """

    run_id: str
    metric: str
    value: float
    step: int | None
    timestamp: datetime
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def recorded(
        cls,
        run_id: str,
        metric: str,
        value: SupportsFloat,
        step: int | None,
        metadata: Mapping[str, Any] | None,
    ) -> MetricEntry:
        """Make the entry of a number that is recorded now, checked as every store must.

        Raises:
            InvalidInput: the value is not a number, the step is not an integer, or JSON cannot hold
                the metadata.
        """
        number, at, kept = check_metric(metric, value, step, metadata)
        return cls(run_id, metric, number, at, datetime.now(UTC), kept)

    @classmethod
    def restored(
        cls,
        run_id: object,
        metric: object,
        value: object,
        step: object,
        timestamp: object,
        metadata: object,
    ) -> MetricEntry:
        """Make the entry of a row that was read back from storage.

        Files and tables may be damaged or written to by other programs: a store skips anything that
        is not one of its rows, and counts it in a `CrucibleWarning`.

        The arguments are the fields as they were read. The value may be an integer; the timestamp
        is aware, in any time zone.

        Raises:
            InvalidInput: a field is of another type, or out of its range.
        """
        if not (
            isinstance(run_id, str)
            and isinstance(metric, str)
            and isinstance(value, int | float)
            and (step is None or isinstance(step, int))
            and not isinstance(value, bool)
            and not isinstance(step, bool)
            and isinstance(timestamp, datetime)
            and isinstance(metadata, Mapping)
        ):
            raise InvalidInput("a field of the row is missing, or of another type")
        if timestamp.tzinfo is None:
            raise InvalidInput(f"the time {timestamp} has no zone")
        try:
            # An integer of 400 digits; the first hour of year 1 in a zone east of UTC.
            return cls(run_id, metric, float(value), step, timestamp.astimezone(UTC), metadata)
        except OverflowError as error:
            raise InvalidInput(f"the value or the time cannot be held: {error}") from None


def check_metric(
    metric: str, value: SupportsFloat, step: int | None, metadata: Mapping[str, Any] | None
) -> tuple[float, int | None, dict[str, Any]]:
    """Return the value, the step and the metadata of a number as every store keeps them.

    For stores that are called a hundred thousand times and make no `MetricEntry` until they are
    read: floats with integer steps, which nearly all are, take 0.2 us.

    Returns:
        The value as float64, the step as an integer of any size, and a copy of the metadata.

    Raises:
        InvalidInput: the value is not a number, the step is not an integer, or JSON cannot hold the
            metadata.
    """
    number = value if type(value) is float else _number(metric, value)
    at = step if step is None or type(step) is int else _step(metric, step)
    return number, at, _json_object(metadata) if metadata else {}


def _number(metric: str, value: SupportsFloat) -> float:
    if not hasattr(type(value), "__float__"):  # `isinstance(value, SupportsFloat)`: 9 us
        raise InvalidInput(f"the value of {metric!r} must be a number, not {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"the value of {metric!r} is not a float: {error}") from error


def _step(metric: str, step: int) -> int:
    try:
        return int(operator.index(step))  # True is 1
    except TypeError:
        raise InvalidInput(f"the step of {metric!r} must be an integer, not {step!r}") from None


def _json_object(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the metadata, converted to JSON and back."""
    kept = {}
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise InvalidInput(f"metadata keys must be strings, not {key!r}")
        try:
            kept[key] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"metadata[{key!r}] is not JSON: {error}") from error
    return kept


def _int64(values: ArrayLike | Iterable[int], what: str) -> IntArray:
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        raise InvalidInput(f"{what} must be a flat sequence of integers") from None
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidInput(
            f"{what} must be a flat sequence of integers, not {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64, copy=False)
