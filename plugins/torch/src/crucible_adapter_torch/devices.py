"""Where PyTorch computes, in which precision, and on how many threads."""

from __future__ import annotations

import torch
from crucible_kitchen import InvalidInput


def choose_device(name: str) -> torch.device:
    """Return the device of this name; see `ModelOptions.device`.

    Raises:
        InvalidInput: this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception as error:
        reason = str(error).split("\n")[0].split(" device type at start")[0]
        raise InvalidInput(
            f"no device {name!r} here; there is {', '.join(_devices())}, and auto takes "
            f"{choose_device('auto')} ({reason})"
        ) from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of this name on the device; see `ModelOptions.dtype`."""
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def use_threads(count: int) -> None:
    """Set the number of CPU threads: of this thread for OpenMP, of the process otherwise."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _devices() -> list[str]:
    """Return the names of the devices of this machine."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]
