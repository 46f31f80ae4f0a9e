"""Frozen weights in few bytes: kept in bfloat16, 8 or 4 bits, and multiplied in the precision of
the computation.

A matrix becomes dense where it is multiplied, one at a time, in the backward pass once more, so a
model in few bytes never has another copy of itself. bfloat16 is exact in float32: where the weights
on disk are bfloat16, as most are, results are those of a model in float32 to the bit.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, cast

import torch
from crucible_kitchen import CrucibleWarning, SessionConfig, Unsupported
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from .quiet import quiet

Storage: TypeAlias = Literal["float32", "bfloat16", "int8", "nf4"]

BLOCK = 64
"""Weights that share a scale in 4 bits."""


class FrozenLinear(nn.Linear):
    """A linear layer whose weight is not trained, kept as `storage` says.

    Args:
        weight: `(out, in)`, or `(in, out)` if `transposed`, as in GPT-2.
        bias: `(out,)`, or None.
        storage: `bfloat16` keeps the parameter `weight`. `int8` has a scale for each row, `nf4` one
            for `BLOCK` weights; they have no `weight`, so that a model which takes the weight out
            of the module fails rather than computes something else.
        transposed: see `weight`.

    Raises:
        Unsupported: 4 bits without bitsandbytes.
    """

    compute_dtype = torch.float32
    """The precision of an update beside it; PEFT asks for this name."""

    def __init__(self, weight: nn.Parameter, bias: Any, storage: Storage, transposed: bool) -> None:
        nn.Module.__init__(self)  # not nn.Linear's, which makes a weight
        self.storage, self.transposed = storage, transposed
        rows = weight.T if transposed else weight
        self.out_features, self.in_features = rows.shape
        if self.has_weight:
            self.weight = weight
        else:
            stored, scale = _in_8_bits(rows) if storage == "int8" else _in_4_bits(rows)
            self.stored = nn.Parameter(stored, requires_grad=False)
            self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = bias  # behind the weight, as in a plain layer: fingerprints keep the order

    @property
    def has_weight(self) -> bool:
        """Whether its weight is a parameter as it is, rather than few bits."""
        return self.storage == "bfloat16"

    def dense(self, dtype: torch.dtype) -> Tensor:
        """Return the weight, `(out, in)`, in a floating-point type."""
        if self.has_weight:
            weight = self.weight.detach().to(dtype)
            return weight.T if self.transposed else weight
        if self.storage == "int8":
            return (self.stored * self.scale).to(dtype)
        shape = (self.out_features, self.in_features)
        dense: Tensor = torch.ops.bitsandbytes.dequantize_4bit(
            self.stored, self.scale, BLOCK, "nf4", shape, dtype
        )
        return dense

    def forward(self, input: Tensor) -> Tensor:
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        product: Tensor = _Product.apply(input.to(dtype), bias, self)  # type: ignore[no-untyped-call]
        return product

    def plain(self, update: Tensor | None = None) -> nn.Module:
        """Return the layer as Transformers has it, `nn.Linear` or `Conv1D`, in float32 on the CPU,
        with an update `(out, in)` added to its weight.
        """
        layer: nn.Module
        with torch.device("meta"):
            if self.transposed:
                layer = Conv1D(self.out_features, self.in_features)
            else:
                layer = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        weight = self.dense(torch.float32) if update is None else self.dense(torch.float32) + update
        weight = (weight.T if self.transposed else weight).contiguous().cpu()
        layer.weight = nn.Parameter(weight, requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().float().cpu(), requires_grad=False)
        return layer

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, storage={self.storage}"


class _Product(torch.autograd.Function):
    """`x W^T + b` without a gradient for W, which is made dense again rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return functional.linear(x, layer.dense(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad @ ctx.layer.dense(grad.dtype), None, None


def choose_storage(
    base_dtype: str, config: SessionConfig, computed_in: torch.dtype
) -> Storage | None:
    """Return how a session keeps frozen weights, see `TrainingClientOptions.base_dtype`; None if it
    has no low-rank update, so that each weight may be trained.
    """
    if config.lora is None:
        if config.trainable and base_dtype not in ("auto", "float32"):
            warnings.warn(
                f"base_dtype {base_dtype} is for the frozen weights of a low-rank session, and "
                "this session trains every weight, in float32",
                CrucibleWarning,
                stacklevel=2,
            )
        return None
    if base_dtype == "auto":
        base_dtype = "bfloat16" if computed_in is torch.bfloat16 else "float32"
    return cast(Storage, base_dtype)


def precision_of(storage: Storage) -> torch.dtype:
    """Return the type to load weights in that will be stored so: no copy in float32 is made."""
    return torch.float32 if storage == "float32" else torch.bfloat16


@torch.no_grad()
def freeze(model: Any, storage: Storage, computed_in: torch.dtype, device: torch.device) -> None:
    """Freeze a model, and keep its weights as `storage` says, in place, a layer at a time.

    Projections are in 8 or 4 bits, but the unembedding and the embedding in bfloat16. What a model
    multiplies with in its own ways, such as stacked experts, is bfloat16 where it computes in
    bfloat16, and float32 otherwise, as are vectors; so is a projection whose weight is also used
    in a way of the model's own.

    Args:
        model: in the precision that `precision_of` returns, or in float32.
        storage: how.
        computed_in: the precision of its computation.
        device: where projections become few bits.

    Raises:
        Unsupported: see `FrozenLinear`.
    """
    model.requires_grad_(False)
    if storage == "float32":
        return
    unembed, kept = model.get_output_embeddings(), set()
    others = {
        id(weight)
        for module in model.modules()
        if not (_multiplies(module) or _looks_up(module))
        for weight in module.parameters(recurse=False)
    }
    for name, module in [*model.named_modules()]:
        if _multiplies(module) and id(module.weight) not in others:
            few = storage in ("int8", "nf4") and module is not unembed
            weight = module.weight
            weight.data = weight.data.to(device if few else None, torch.bfloat16)
            kind = storage if few else "bfloat16"
            layer = FrozenLinear(weight, module.bias, kind, type(module) is Conv1D)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer)
            kept.add(id(weight))
        elif _looks_up(module) and id(module.weight) not in others:
            module.weight.data = module.weight.data.to(torch.bfloat16)
            module.register_forward_hook(_in_float32)
            if hasattr(module, "scalar_embed_scale"):  # a buffer, rounded as the weights are loaded
                module.embed_scale = torch.full_like(
                    module.embed_scale, module.scalar_embed_scale, dtype=torch.float32
                )
            kept.add(id(module.weight))
    for weight in model.parameters():
        if weight.is_floating_point() and id(weight) not in kept:
            matrix = weight.ndim > 1 and computed_in is torch.bfloat16
            weight.data = weight.data.to(torch.bfloat16 if matrix else torch.float32)


def is_frozen(model: Any) -> bool:
    """Whether weights of a model are kept in few bytes."""
    return any(isinstance(module, FrozenLinear) for module in model.modules())


@contextlib.contextmanager
def with_shapes(model: Any) -> Iterator[None]:
    """Show PEFT, which asks for shapes and devices, a `weight` where a layer has none, which takes
    no memory.
    """
    layers = [m for m in model.modules() if isinstance(m, FrozenLinear) and not m.has_weight]
    for layer in layers:
        zero = torch.zeros((), device=layer.stored.device)
        layer.__dict__["weight"] = zero.expand(layer.out_features, layer.in_features)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["weight"]


def make_plain(model: Any) -> None:
    """Turn every weight of a model that is no longer used into float32, in place, on the CPU; the
    tensors themselves, which another model may share, stay as they are.
    """
    for name, module in [*model.named_modules()]:
        if isinstance(module, FrozenLinear):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.plain())
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            wide = made.setdefault(
                id(weight), nn.Parameter(weight.detach().float().cpu(), requires_grad=False)
            )
            setattr(module, name, wide)


def whole_bytes(model: Any) -> int:
    """Return the bytes of the weights of a model when it is plain: in float32 if some are kept in
    few bytes, else as they are.
    """
    weights: list[Tensor] = [*model.parameters()]
    if not is_frozen(model):
        return sum(weight.nbytes for weight in weights)
    few = {
        id(module.stored): module.in_features * module.out_features
        for module in model.modules()
        if isinstance(module, FrozenLinear) and not module.has_weight
    }
    return 4 * sum(few.get(id(weight), weight.numel()) for weight in weights)


def _multiplies(module: nn.Module) -> bool:
    return type(module) in (nn.Linear, Conv1D)


def _looks_up(module: nn.Module) -> bool:
    """Whether a module is an embedding of tokens: what it gives is made of the row of each, such as
    a multiple. Embeddings of positions, which count for themselves, are asked for more than ids.
    """
    asked = inspect.signature(type(module).forward).parameters
    return isinstance(module, nn.Embedding) and len(asked) == 2


def _in_float32(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Return what an embedding gives as if its weight were float32: what layers add to is float32,
    whatever they multiply in.
    """
    if output.dtype is torch.float32 or type(module).forward is nn.Embedding.forward:
        return output.float()
    [ids] = args
    wide = copy.copy(module)  # over the rows in question alone, in float32
    rows = functional.embedding(ids, cast(Tensor, module.weight)).float()
    wide.__dict__["_parameters"] = {"weight": rows.flatten(0, -2)}
    wide.__dict__["padding_idx"] = None
    places = torch.arange(ids.numel(), device=ids.device).view(ids.shape)
    found: Tensor = type(module).forward(wide, places)
    return found


def _in_8_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.float().abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (weight / scale).round().to(torch.int8), scale


def _in_4_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    try:
        with quiet():
            importlib.import_module("bitsandbytes")  # which registers its operators
    except ImportError as error:
        raise Unsupported(
            "base_dtype nf4 needs bitsandbytes: pip install 'crucible-adapter-torch[bitsandbytes]'"
        ) from error
    stored, scale = torch.ops.bitsandbytes.quantize_4bit(
        weight.contiguous(), BLOCK, "nf4", torch.uint8
    )
    return stored, scale.float()
