"""`crucible run --show-rows`: rows as the model reads them, with what is trained on marked."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import ConfigurationError, NotRecorded
from ..kitchen import Kitchen
from ..workflows import Workflow, registry
from .styled import Text, console

_TRAINED = re.compile("⟦.*?⟧", re.DOTALL)


def preview(workflow: Workflow, count: int) -> Workflow:
    """Return a workflow that prints the first rows of this one instead of running it.

    The function `preview(kitchen, config, count)` in the workflow's module yields their texts.

    Raises:
        ConfigurationError: the module has no such function.
    """
    found = companion(workflow, "preview", "(kitchen, config, count)", "cannot show rows")

    @functools.wraps(workflow)
    def shown(kitchen: Kitchen, config: Any) -> None:
        try:
            show_marked(found(kitchen, config, count))
        except NotRecorded as error:
            error.add_note("a replay can only show rows as they were rendered for the recorded run")
            raise

    return shown


def companion(workflow: Workflow, name: str, arguments: str, without: str) -> Callable[..., Any]:
    """Return a function of the workflow's module; say what the workflow is without it.

    Raises:
        ConfigurationError: the module has no such function.
    """
    found = registry.companion(workflow, name)
    if found is None:
        raise ConfigurationError(
            f"the workflow {workflow.__module__}:{workflow.__qualname__} {without}: its module has "
            f"no function {name}{arguments}"
        )
    return found


def show_marked(texts: Iterable[str]) -> None:
    """Print rows as the model reads them, what is trained on in colour on a terminal."""
    terminal = console()
    for text in texts:
        row = Text(text)
        row.highlight_regex(_TRAINED, "bold green")
        terminal.print(row, soft_wrap=True)
        terminal.print()
