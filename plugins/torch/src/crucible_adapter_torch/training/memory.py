"""What a session needs in memory, found out from the configuration of its model alone.

A pass is run on tensors without content, and what is alive is counted. So the count follows the
code: attention, gradient checkpointing, low-rank updates and frozen weights of few bits.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from crucible_kitchen import AdapterError, SessionConfig, Unsupported
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from ..adaptation import lora
from ..devices import choose_device, choose_dtype
from ..models import frozen, layers, loading
from ..models.language_model import LanguageModel
from ..models.quiet import quiet
from ..options import TrainingClientOptions
from ..passes import scoring
from ..passes.batches import pieces
from ..passes.unembedding import assume_plain
from .losses import LOSSES
from .optimizers import in_8_bits


def needed(opts: TrainingClientOptions, config: SessionConfig, budget: int) -> dict[str, int]:
    """Return the bytes that a session takes on its device at most, by what takes them.

    Args:
        opts: of the training client.
        config: of the session.
        budget: tokens, padding included, computed at a time.

    Returns:
        `weights`, `gradients`, `moments`, and `activations`: all else that a pass over `budget`
        tokens holds at a time. What PyTorch and its allocator take is not counted. `loading` is
        what weights take before they become few bits; on the CPU alone, for they do there.

    Raises:
        Unsupported: the architecture cannot be run on tensors without content.
        NotFound, InvalidInput, Unauthorized, Unavailable: see `loading.load`.
    """
    described = loading.configuration(opts, config.model, config.revision)
    try:
        with quiet():
            return _count(opts, config, described, budget)
    except AdapterError:
        raise
    except Exception as error:  # each architecture does what it likes with its tensors
        raise Unsupported(
            f"the memory of a {described.model_type} cannot be estimated: "
            f"{type(error).__name__}: {error}"
        ) from error


def _count(
    opts: TrainingClientOptions, config: SessionConfig, described: Any, budget: int
) -> dict[str, int]:
    device = choose_device(opts.device)
    dtype = choose_dtype(opts.dtype, device)
    storage = frozen.choose_storage(opts.base_dtype, config, dtype)
    kept = torch.float32 if storage is None else frozen.precision_of(storage)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described, dtype=kept)
        layers.use_attention(model, opts.attn_implementation)
        loaded = sum(weight.nbytes for weight in model.parameters())
        if config.model in opts.models:  # it is made in float32
            loaded = 4 * sum(weight.numel() for weight in model.parameters())
        if storage is not None:
            frozen.freeze(model, storage, dtype, torch.device("meta"))
        if config.lora is not None:
            lora.inject(model, config.lora, config.seed)
    if opts.gradient_checkpointing:
        layers.checkpoint_gradients(model)
    model.train()
    trained = [w for w in model.parameters() if w.requires_grad] if config.trainable else []
    gradients = sum(weight.nbytes for weight in trained)
    living = _Living()
    # Tensors that know their device, whose kernels and their needs differ, but have no content.
    with FakeTensorMode(allow_non_fake_inputs=True):
        _move(model, device)
        language = LanguageModel(config.model, model, None, dtype)
        assume_plain(language)
        with living:
            run_pass(language, config, budget, bool(trained))
    held = {id(t): t.nbytes for t in [*model.parameters(), *model.buffers()]}
    return {
        "weights": sum(held.values()),
        "gradients": gradients,
        "moments": in_8_bits(trained) if opts.optimizer_state == "8bit" else 2 * gradients,
        "activations": living.most - gradients,
        "loading": loaded if device.type == "cpu" else 0,
    }


def _move(model: Any, device: torch.device) -> None:
    """Replace each tensor by an empty one on a device; what was one tensor stays one."""
    moved: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    if id(tensor) not in moved:
                        empty = torch.empty_like(tensor, device=device)
                        moved[id(tensor)] = (
                            torch.nn.Parameter(empty, tensor.requires_grad)
                            if isinstance(tensor, torch.nn.Parameter)
                            else empty
                        )
                    tensors[name] = moved[id(tensor)]


def run_pass(language: LanguageModel, config: SessionConfig, budget: int, backward: bool) -> None:
    """Run a pass over `budget` tokens, in rows of the greatest length that fits.

    Args:
        language: a model; with `backward`, the gradients of its weights are added to.
        config: of its session.
        budget: tokens.
        backward: whether to compute gradients.
    """
    limits = [limit for limit in (config.max_length, language.context, budget) if limit]
    length = max(1, min(limits))
    row = np.zeros(length, np.int64)
    rows = [row] * max(1, budget // length)
    [piece, *_] = pieces(rows, rows, budget, {"weights": [np.ones(length, np.float32)] * len(rows)})
    if not backward:
        with torch.no_grad():
            scoring.target_logprobs(language, piece)
        return
    given = torch.from_numpy(piece.loss_inputs["weights"]).to(language.device)
    loss = LOSSES["cross_entropy"]
    scoring.add_gradient(
        language, piece, lambda logprobs, part: loss(logprobs, {"weights": given[part]}, {})
    )


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made inside it and are alive.

    Attributes:
        most: of them at a time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {_key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not isinstance(tensor, torch.Tensor) or (key := _key(tensor)) in self._known | given:
                continue
            storage = tensor.untyped_storage()
            self._known.add(key)
            self._now += storage.nbytes()
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._forget, key, storage.nbytes())
        return out

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
