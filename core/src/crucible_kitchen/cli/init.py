"""`crucible init`: a commented crucible.toml to start from."""

from __future__ import annotations

import json
import os
import stat
import textwrap
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from ..binding import options_class
from ..discovery import KNOWN_ADAPTERS, KNOWN_WRAPPERS, Catalog, by_preference, catalog
from ..environment import variables
from ..errors import ConfigurationError, CrucibleError
from ..masking import is_secret, shown
from ..observers.config import ObserveConfig
from ..spelling import shortened
from ..workflows import WorkflowConfig, config_class, find
from .console import note
from .toml import toml

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "supervised": {"model": "Qwen/Qwen3-0.6B", "dataset": "train.jsonl"},
    "torch": {"checkpoint_dir": "runs/checkpoints"},
    "fsspec": {"url": "runs"},
    "jsonl": {"path": "runs/metrics"},
}
"""Values to begin with, of a workflow or an adapter: what a run leaves is in one folder."""


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("crucible.toml"),
    workflow: Annotated[str, typer.Option(help="The workflow to configure.")] = "supervised",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a commented crucible.toml to start from."""
    try:
        # Not Path.exists, to which a name that is too long does not exist, or is an error.
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        kind = None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    if kind is not None and not stat.S_ISREG(kind):
        raise ConfigurationError(f"{path} exists and is not a file; choose another name")
    if kind is not None and not force:
        raise ConfigurationError(f"{path} exists; choose another name, or --force to replace it")
    text = "\n".join(_lines(workflow)) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    note(f"wrote {path}; edit it, look at it with `crucible config`, then `crucible run`")


def _lines(workflow: str) -> Iterator[str]:
    yield "# Settings of Crucible Kitchen. `crucible config` shows what applies, and from where."
    yield "# Any key can be set on the command line: crucible run workflow.batch_size=64"
    yield "# or in the environment: CRUCIBLE_WORKFLOW__BATCH_SIZE=64"
    chosen = config_class(find(workflow))
    examples = EXAMPLES.get(workflow, {})
    needed = _needed(chosen, examples)
    for port in KNOWN_ADAPTERS:
        yield ""
        if port in needed:
            yield from _adapter(catalog(), port)
        else:
            yield "# Not needed as it is:"
            yield from (f"# {line}" for line in _adapter(catalog(), port))
    yield ""
    yield "[workflow]"
    yield f"use = {json.dumps(workflow)}"
    yield from _fields(chosen, examples)
    yield ""
    yield "[observe]"
    yield from _fields(ObserveConfig, {})
    if any(entry.name == "noop" for entry in catalog().entries):
        yield ""
        yield "# Laid over it by `crucible run --profile dry`, to try everything but a model:"
        yield "[profile.dry.adapters]"
        yield from (f'{port} = "noop"' for port in ("training_client", "completer"))


def _needed(config: type[WorkflowConfig], examples: Mapping[str, Any]) -> Collection[str]:
    """Return the ports that a run with the examples uses; all of them where that is not known."""
    try:
        return config.model_validate(examples).required_ports() or KNOWN_ADAPTERS
    except ValidationError:
        return KNOWN_ADAPTERS


def _adapter(found: Catalog, port: str) -> Iterator[str]:
    installed = by_preference(port, (entry.name for entry in found.entries if entry.port == port))
    installed = [name for name in installed if name not in KNOWN_WRAPPERS[port]]
    if not installed:
        yield f"# [adapters.{port}]"
        example = KNOWN_ADAPTERS[port][-1]
        yield f'# use = "{example}"  # pip install crucible-adapter-{example}'
        return
    name, *others = installed
    yield f"[adapters.{port}]"
    yield f"use = {json.dumps(name)}" + (
        f"  # also installed: {shortened(others)}" if others else ""
    )
    try:
        options = options_class(found.find(port, name).load(), name)
    except CrucibleError as error:
        yield from _comment(str(error))
    else:
        yield from _fields(options, EXAMPLES.get(name, {}))


def _fields(model: type[BaseModel], examples: Mapping[str, Any]) -> Iterator[str]:
    """Yield every key with its meaning: examples and required ones, and others commented out."""
    for name, field in model.model_fields.items():
        yield from _comment(field.description or "")
        names = variables(field)
        if is_secret(field.annotation):
            source = f"${names[0]}" if names else "the environment"
            yield f"# {name}: a secret, better kept in {source} than here"
        elif names:
            yield f"# {name} = ...  # where it is not set, ${names[0]} is taken"
        elif name in examples or field.is_required():
            yield f"{name} = {toml(examples.get(name, '...'))}"
        else:
            computed = field.default_factory_takes_validated_data
            default = None if computed else field.get_default(call_default_factory=True)
            if default is None or default is PydanticUndefined:
                yield f"# {name} = ..."
            else:
                yield f"# {name} = {toml(shown({name: default})[name])}"


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, 88):
        yield f"# {line}"
