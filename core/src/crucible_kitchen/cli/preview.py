"""`crucible run --show-rows`: rows as the model reads them, with what is trained on marked."""

from __future__ import annotations

import functools
import re
from typing import Any

from ..errors import ConfigurationError
from ..kitchen import Kitchen
from ..workflows import Workflow, registry
from .console import Text, console

_TRAINED = re.compile("⟦.*?⟧", re.DOTALL)


def preview(workflow: Workflow, count: int) -> Workflow:
    """Return a workflow that prints the first rows of this one instead of running it.

    The function `preview(kitchen, config, count)` in the workflow's module yields their texts.

    Raises:
        ConfigurationError: the module has no such function.
    """
    found = registry.companion(workflow, "preview")
    if found is None:
        raise ConfigurationError(
            f"the workflow {workflow.__module__}:{workflow.__qualname__} cannot show rows: its "
            "module has no function preview(kitchen, config, count)"
        )

    @functools.wraps(workflow)
    def shown(kitchen: Kitchen, config: Any) -> None:
        terminal = console()
        for text in found(kitchen, config, count):
            row = Text(text)
            row.highlight_regex(_TRAINED, "bold green")
            terminal.print(row, soft_wrap=True)
            terminal.print()

    return shown
