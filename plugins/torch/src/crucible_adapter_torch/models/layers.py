"""How the layers of a model run: which attention, what they keep for the gradient, compiled."""

from __future__ import annotations

import warnings
from typing import Any

from crucible_kitchen import InvalidInput, Unsupported
from transformers.modeling_layers import GradientCheckpointingLayer


def use_attention(model: Any, name: str) -> None:
    """Choose Transformers' attention by its name; `auto` leaves what it chose itself.

    Raises:
        InvalidInput: no attention is called that, or this architecture does not know it.
        Unsupported: it needs a package that is not installed.
    """
    if name == "auto":
        return
    why = f"attn_implementation {name!r} on a {type(model).__name__}"
    try:
        model.set_attn_implementation(name)
    except ValueError as error:
        raise InvalidInput(f"{why}: {error}") from error
    except ImportError as error:
        raise Unsupported(f"{why}: {error}") from error


def layers_of(model: Any) -> list[Any]:
    """Return the layers of a model; none, where its architecture does not mark them."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def checkpoint_gradients(model: Any) -> None:
    """Keep the input of each layer alone, and compute the layer once more in the backward pass,
    with the same random numbers.

    Raises:
        Unsupported: this architecture cannot.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise Unsupported(f"gradient_checkpointing: a {type(model).__name__} cannot do it")
    newer = getattr(model, "activation_checkpointing_enable", None)  # Transformers 5.20 or so
    (newer or model.gradient_checkpointing_enable)({"use_reentrant": False})


def compile_layers(model: Any) -> None:
    """Have each layer compiled where it first runs, in place: the names of weights stay.

    Layers are alike, so one compilation serves all of them; where an architecture does not mark its
    layers, the model is compiled as a whole.
    """
    with warnings.catch_warnings():  # what PyTorch's compiler imports warns of PyTorch
        warnings.simplefilter("ignore", DeprecationWarning)
        for module in layers_of(model) or [model]:
            module.compile(dynamic=True)
