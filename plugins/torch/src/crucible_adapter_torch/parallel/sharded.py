"""Data parallelism by parts (FSDP2): each rank has some rows of each weight, gradient and moment,
and the whole weights of a layer only while it computes that layer.

The optimizer, the clipping and the checkpoints know plain tensors, this rank's parts, and nothing
of the DTensors that they are parts of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from crucible_kitchen import SessionConfig, Unsupported
from torch import Tensor, device, nn
from torch.distributed import fsdp
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from ..models.language_model import LanguageModel
from ..models.layers import layers_of
from ..options import TrainingClientOptions
from . import shells
from .alone import Strategy
from .group import Group


class Sharded(Group):
    """Ranks that each have a part of the model."""

    strategy: ClassVar[Strategy | None] = "fsdp"
    divides: ClassVar[bool] = True

    def __init__(self, here: device) -> None:
        super().__init__(here)
        self._reached: set[str] = set()
        """Weights that the pass so far gave a gradient to, by name."""
        self._used: set[str] = set()
        """The same of all passes here since the last step, without those over nothing."""

    def check(self, opts: TrainingClientOptions, config: SessionConfig) -> None:
        if not hasattr(fsdp.FSDPModule, "set_reduce_scatter_unused_params"):
            raise Unsupported(f"strategy fsdp needs torch 2.13 or newer, not {torch.__version__}")
        if opts.optimizer_state == "8bit":
            raise Unsupported(
                "strategy fsdp with optimizer_state 8bit: a scale belongs to neighbouring numbers, "
                "which other ranks may have; use float32 moments, of which each rank has a part"
            )
        if "flash" in opts.attn_implementation:
            raise Unsupported(
                f"strategy fsdp with attn_implementation {opts.attn_implementation!r}: a model is "
                "loaded and tried on the CPU before it is divided, where this attention cannot "
                "run; use sdpa"
            )
        if opts.compile:
            raise Unsupported("strategy fsdp with compile is not tested; use one of them")

    def load_on(self, chosen: device) -> device:
        # Whole models may not fit where their parts do.
        return torch.device("cpu")

    # --- the model ---

    def spread(
        self, language: LanguageModel, trained: Mapping[str, nn.Parameter]
    ) -> dict[str, nn.Parameter]:
        model = language.model
        self._check_equal(model)
        _refuse_unembedding_alone(model, trained)
        names = [name for name, _ in model.named_parameters()]
        self._shell = shells.empty(model)
        try:
            self._shard(model)
            self._read_a_token(language)
        except (ValueError, NotImplementedError) as error:
            raise Unsupported(
                f"strategy fsdp: the weights of a {type(self._shell).__name__} cannot be divided: "
                f"{error}"
            ) from error
        self._parts = dict(model.named_parameters())
        assert [*self._parts] == names
        self._watch(model, trained)
        return {
            name: nn.Parameter(_local(self._parts[name]), self._parts[name].requires_grad)
            for name in trained
        }

    def _shard(self, model: Any) -> None:
        everyone = dist.group.WORLD
        assert everyone is not None
        mesh = DeviceMesh.from_group(everyone, self._device.type)
        for module in (*reversed(layers_of(model)), model):  # inner ones first
            fsdp.fully_shard(module, mesh=mesh)
            # Sums: PyTorch divides by the number of ranks unless it is told not to, and another
            # divisor alone fails on gloo.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        # A rank may use weights that others do not, such as those of an expert.
        model.set_reduce_scatter_unused_params(True)

    @torch.no_grad()
    def _read_a_token(self, language: LanguageModel) -> None:
        """Have PyTorch do what it leaves until the first pass, which may make tensors new."""
        with language.autocast():
            language.logits(torch.zeros((1, 1), dtype=torch.int64, device=self._device))
        self.after_forward(language.model)

    def _watch(self, model: Any, trained: Mapping[str, nn.Parameter]) -> None:
        """Have each trained weight note in `_reached` that it got a gradient."""

        def noting(name: str) -> Callable[[Tensor], None]:
            return lambda _: self._reached.add(name)

        for module in model.modules():
            if isinstance(module, fsdp.FSDPModule):
                module.unshard()  # whole weights stay the same objects from pass to pass
                for name, weight in model.named_parameters():
                    if name in trained and not isinstance(weight, DTensor):
                        weight.register_post_accumulate_grad_hook(noting(name))
                module.reshard()

    def after_forward(self, model: Any) -> None:
        # PyTorch leaves the weights outside of the layers whole, for a backward pass. If none
        # follows, they would stay as they are when the parts change.
        model.reshard()

    def whole(self, model: Any) -> Any:
        tensors = self.gathered({name: _local(part) for name, part in self._parts.items()})
        return None if tensors is None else shells.filled(self._shell, tensors, model)

    # --- gradients ---

    def after_backward(self, idle: bool) -> None:
        if not idle:
            self._used |= self._reached
        self._reached.clear()

    def sum_gradients(self, weights: Mapping[str, nn.Parameter]) -> None:
        # They are sums already, but PyTorch also gives zeros to a weight that no pass used, which
        # AdamW would decay.
        used = torch.tensor(
            [name in self._used for name in weights], dtype=torch.int32, device=self._device
        )
        dist.all_reduce(used, dist.ReduceOp.MAX)
        for (name, weight), anywhere in zip(weights.items(), used.tolist(), strict=True):
            part = self._parts[name]
            weight.grad = _local(part.grad) if anywhere else None
            part.grad = None
        self._used.clear()

    def norm(self, norm: Tensor) -> Tensor:
        square = norm.double().square()
        dist.all_reduce(square)
        return square.sqrt().to(norm.dtype)

    def drop_gradients(self, weights: Mapping[str, nn.Parameter]) -> None:
        for name, weight in weights.items():
            weight.grad = self._parts[name].grad = None
        self._reached.clear()
        self._used.clear()

    # --- state ---

    def rows(self, shape: tuple[int, ...]) -> slice | None:
        if not shape:
            return None
        count = -(-shape[0] // self.size)
        start = min(self.rank * count, shape[0])
        return slice(start, min(start + count, shape[0]))

    @torch.no_grad()
    def gathered(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        lengths = self._all([len(tensor) if tensor.ndim else 0 for tensor in tensors.values()])
        whole = {}
        for (name, tensor), *counts in zip(tensors.items(), *lengths, strict=True):
            found = self._gather(tensor, counts) if tensor.ndim else tensor.clone()
            if found is not None:
                whole[name] = found.cpu()
        return whole if self.rank == 0 else None

    def _gather(self, part: Tensor, counts: list[int]) -> Tensor | None:
        """Return the rows of all ranks on rank 0, given how many each has; None on others."""
        if len(part) < max(counts):
            missing = part.new_zeros((max(counts) - len(part), *part.shape[1:]))
            part = torch.cat([part, missing])
        part = part.contiguous()
        if self.rank:
            dist.gather(part.view(torch.uint8), None, dst=0)
            return None
        parts = [torch.empty_like(part) for _ in counts]
        dist.gather(part.view(torch.uint8), [each.view(torch.uint8) for each in parts], dst=0)
        return torch.cat([each[:count] for each, count in zip(parts, counts, strict=True)])


def _local(tensor: Any) -> Tensor:
    """Return what this rank has of a DTensor: the same memory, as a plain tensor."""
    part: Tensor = tensor.detach().to_local()
    return part


def _refuse_unembedding_alone(model: Any, trained: Mapping[str, nn.Parameter]) -> None:
    head = model.get_output_embeddings()
    inside = {id(weight) for weight in head.parameters()} if head is not None else set()
    if inside and all(id(weight) in inside for weight in trained.values()):
        raise Unsupported(
            "strategy fsdp: only the unembedding is trained, whose gradient needs no pass through "
            "the layers, which is where parts are collected; use ddp"
        )
