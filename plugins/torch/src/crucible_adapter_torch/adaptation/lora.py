"""Low-rank adaptation through PEFT, on the projections that a model has, whatever their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from crucible_kitchen import InvalidInput, LoraConfig, Unsupported, did_you_mean
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..models.frozen import FrozenLinear, with_shapes
from ..models.language_model import LanguageModel
from ..models.quiet import quiet
from ..models.weights import Adapter
from ..randomness import seeded

GROUPS = ("attn", "mlp", "unembed")
ADAPTER = "default"
PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the names of a model's weights."""

ROUTERS = {"gate", "router"}
"""Routers of mixtures of experts. They are not projections: adapting one would change which experts
are used."""


def add_lora(language: LanguageModel, config: LoraConfig, seed: int) -> Any:
    """Put a trainable update next to each targeted projection and freeze everything else; see
    `inject`. Check that each update has an effect.

    Returns:
        PEFT's configuration of the update, as any program needs it for the plain model.

    Raises:
        Unsupported, InvalidInput: see `inject`; a projection that the model uses in a way that an
            update cannot reach.
    """
    described = inject(language.model, config, seed)
    _check_reach(language)
    return described


def inject(model: Any, config: LoraConfig, seed: int) -> Any:
    """Put a trainable update next to each targeted projection and freeze everything else.

    The update starts at zero: A is random, a function of the seed, and B is zero. Matrices that
    are stacked in one tensor, as experts are, have one update each.

    Returns:
        PEFT's configuration of the update, as any program needs it for the plain model.

    Raises:
        Unsupported: no projection has a targeted name; "unembed" where it is also the embedding;
            dropout for stacked matrices.
        InvalidInput: the model has none of the targeted projections.
    """
    with quiet():
        import peft  # takes seconds

    _refuse_tied(model, config.targets)
    chosen = list(_chosen(model, config.targets))
    modules = [name for name, stacked in chosen if not stacked]
    tensors = [name for name, stacked in chosen if stacked]
    if tensors and config.dropout:
        raise Unsupported(
            f"lora dropout {config.dropout}: the experts of this model are stacked in one tensor "
            f"({tensors[0]}, ...), whose update cannot drop inputs; set dropout to 0, or name "
            "targets without them"
        )
    shared = {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
    }
    transposed = any(_is_transposed(model.get_submodule(name)) for name in modules)
    described = peft.LoraConfig(
        **shared,
        task_type="CAUSAL_LM",
        fan_in_fan_out=transposed,
        target_modules=_shortest(model, modules),
        target_parameters=tensors or None,
    )
    adaptation = peft.LoraConfig(
        **shared,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in modules),
        target_modules=[f"model.{name}" for name in modules],
        target_parameters=[f"model.{name}" for name in tensors] or None,
    )
    # Inside a plain module. In a Transformers model with experts, PEFT would take projections named
    # as in older versions, such as a shared expert's, for those of the experts only.
    holder = nn.ModuleDict({"model": model})
    with seeded(seed), with_shapes(model):
        peft.inject_adapter_in_model(adaptation, holder, adapter_name=ADAPTER)
    return described


def _is_transposed(projection: nn.Module) -> bool:
    frozen = isinstance(projection, FrozenLinear) and projection.transposed
    return frozen or isinstance(projection, Conv1D)


def _shortest(model: Any, modules: Sequence[str]) -> list[str]:
    """Return the last parts of these names, if no other module has them; else the whole names."""
    last = {name.rpartition(".")[2] for name in modules}
    matched = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in last}
    return sorted(last) if matched == {*modules} else list(modules)


@torch.enable_grad()
def _check_reach(language: LanguageModel) -> None:
    """Read a few tokens, and check that each update has a gradient where its projection has one.

    An update takes the place of a module, and fused kernels take the weight out of it. Projections
    that have no part in reading text, such as cross-attention and image layers, have no gradient.

    Raises:
        Unsupported: a projection is used without its update.
    """
    weights = {
        name: layer.get_base_layer().weight
        for name, layer in language.model.named_modules()
        if hasattr(layer, "get_delta_weight")
        and not hasattr(layer, "parameter_name")
        and hasattr(layer.get_base_layer(), "weight")  # without one, the model has failed already
    }

    def read() -> None:
        ids = torch.arange(8, device=language.device)[None] % language.vocab_size
        with language.autocast():
            logits = language.logits(ids)
        logits.float().log_softmax(-1)[..., 0].sum().backward()  # type: ignore[no-untyped-call]

    updates = dict(language.model.named_parameters())
    try:
        read()
    except RuntimeError as error:  # a module named like a projection computes something else
        if isinstance(error, torch.OutOfMemoryError):
            raise
        layers = {name: language.model.get_submodule(name).get_base_layer() for name in weights}
        plain = _last(name for name in layers if type(layers[name]) in (nn.Linear, Conv1D))
        raise Unsupported(
            f"lora on a {type(language.model).__name__}: with updates the model does not run "
            f"({error}); name `targets` that are plain projections ({plain}), or, if it is about "
            "attention, choose another attn_implementation"
        ) from error
    still = {
        name: weight
        for name, weight in weights.items()
        if updates[f"{name}.lora_B.{ADAPTER}.weight"].grad is None
    }
    for weight in still.values():
        weight.requires_grad_(True)
    if still:
        read()
    missed = sorted(name for name, weight in still.items() if weight.grad is not None)
    for weight in still.values():
        weight.requires_grad_(False)
    language.model.zero_grad()
    for weight in still.values():
        weight.grad = None
    if missed:
        others = _last(weights.keys() - {*missed})
        raise Unsupported(
            f"lora on a {type(language.model).__name__}: the model uses the weight of {missed[0]} "
            f"without the module, so an update would have no effect there (such projections: "
            f"{len(missed)}); name the `targets`: {others or 'it has no others'}"
        )


def _last(names: Iterable[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names}))


def is_update(name: str) -> bool:
    """Whether a parameter of this name belongs to an update."""
    return re.search(rf"\.lora_[AB]\.{ADAPTER}\.", name) is not None


def named_by_peft(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of updates by the names that they have in a file of PEFT."""
    return {
        f"{PEFT_PREFIX}{name.replace(f'.{ADAPTER}.', '.')}": each for name, each in weights.items()
    }


@torch.no_grad()
def take(model: Any, config: LoraConfig | None, adapter: Adapter) -> None:
    """Give the updates of a model the weights of an adapter, to continue its training.

    Raises:
        InvalidInput: `lora` is not set, or the adapter was made with another one.
    """
    whose = f"adapter {adapter.name!r}"
    if config is None:
        raise InvalidInput(
            f"{whose} is to be continued, for which `lora` must be set as it was made; or merge it"
        )
    plain = {"peft_type": "LORA", "r": config.rank, "lora_alpha": config.alpha}
    for key, wanted in plain.items():
        if adapter.settings.get(key) != wanted:
            raise InvalidInput(
                f"{whose} cannot be continued: its {key} is {adapter.settings.get(key)!r}, and "
                f"this session's is {wanted!r}; set `lora` as it was made, or merge it"
            )
    for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if adapter.settings.get(key):
            raise InvalidInput(f"{whose} cannot be continued, since it has {key}; merge it")
    ours = {name: weight for name, weight in model.named_parameters() if is_update(name)}
    theirs = {
        re.sub(r"\.(lora_[AB])\.", rf".\1.{ADAPTER}.", key.removeprefix(PEFT_PREFIX)): tensor
        for key, tensor in adapter.tensors.items()
    }
    odd = {
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
    }
    if odd:
        raise InvalidInput(
            f"{whose} cannot be continued: it adapts other projections than this session's `lora` "
            f"(weights that differ: {len(odd)}, such as {min(odd)!r}); name its `targets` "
            f"({adapter.settings.get('target_modules')}), or merge it"
        )
    for name, weight in ours.items():
        weight.copy_(theirs[name])


# --- what is adapted ---


def _refuse_tied(model: Any, targets: tuple[str, ...]) -> None:
    unembed = model.get_output_embeddings()
    if unembed is None or unembed.weight is not model.get_input_embeddings().weight:
        return
    name = next(name for name, module in model.named_modules() if module is unembed)
    for target in targets:
        if target == "unembed" or _named(name, target):
            raise Unsupported(
                f"lora target {target!r}: this model uses one matrix to embed and unembed tokens, "
                "so it cannot be adapted alone"
            )


def _chosen(model: Any, targets: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Yield the names of what to adapt, and whether each is a tensor of stacked matrices."""
    there = list(_projections(model))
    named = [target for target in targets if target not in GROUPS]
    for target in named:
        if not any(_named(name, target) for name, _, _ in there):
            last = _last(name for name, _, _ in there)
            meant = did_you_mean(target, [*GROUPS, *last.split(", ")]) or ";"
            raise Unsupported(
                f"lora target {target!r}: this model has no projection of that name{meant} there "
                f"are {', '.join(GROUPS)}, and the projections {last}"
            )
    found = False
    for name, group, stacked in there:
        if group not in targets and not any(_named(name, target) for target in named):
            continue
        if stacked and not _are_experts(model, name):
            raise Unsupported(
                f"lora on a {type(model).__name__}: it keeps the projection {name} as a tensor "
                "that is split otherwise than into experts, which cannot be adapted; name other "
                f"`targets`: {_last(name for name, _, stacked in there if not stacked)}"
            )
        found = True
        yield name, stacked
    if not found:
        raise InvalidInput(f"lora targets {targets}: this model has no such projections")


def _named(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _projections(model: Any) -> Iterator[tuple[str, str | None, bool]]:
    """Yield the name of each projection, its group, and whether it is a stack of matrices."""
    unembed = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            yield name, "unembed" if module is unembed else _group(name), False
        elif not isinstance(module, nn.modules.conv._ConvNd):  # those are short filters over time
            for key, weight in module.named_parameters(recurse=False):
                if weight.ndim == 3 and min(weight.shape[1:]) > 1:
                    yield f"{name}.{key}", _group(f"{name}.{key}"), True


def _are_experts(model: Any, name: str) -> bool:
    module = model.get_submodule(name.rpartition(".")[0])
    count = getattr(module, "num_experts", None)
    return "experts" in name or count == len(getattr(module, name.rpartition(".")[2]))


def _group(name: str) -> str | None:
    """Return the group of a projection, by its path: `model.layers.0.mlp.up_proj`."""
    parts = name.split(".")
    if not ROUTERS.isdisjoint(parts) or not any(part.isdigit() for part in parts):
        return None  # a router, or outside the layers
    return "attn" if any(re.search("attn|attention", part) for part in parts) else "mlp"
