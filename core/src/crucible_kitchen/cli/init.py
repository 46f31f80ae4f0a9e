"""`crucible init`: a commented crucible.toml to start from."""

from __future__ import annotations

import json
import os
import stat
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from ..adapters.binding import options_class
from ..adapters.discovery import Catalog, catalog
from ..adapters.known_packages import packages_of
from ..configuration.suggestions import is_synthetic, serving
from ..errors import ConfigurationError, CrucibleError
from ..masking.data import shown
from ..masking.secrets import is_secret
from ..messages.spelling import shortened
from ..observers.config import ObserveConfig
from ..options.environment import variables
from ..ports import PORTS
from ..workflows import WorkflowConfig, registry
from .console import note
from .toml import toml


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("crucible.toml"),
    workflow: Annotated[str, typer.Option(help="The workflow to configure.")] = "supervised",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a commented crucible.toml to start from."""
    try:
        # Not Path.exists, which raises for a name that is too long or says that it does not exist.
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
    chosen = registry.config_class(registry.find(workflow))
    needed = _needed(chosen)
    for port in PORTS:
        yield ""
        if port in needed:
            yield from _adapter(catalog(), port)
        else:
            yield "# Not needed with these settings:"
            yield from (f"# {line}" for line in _adapter(catalog(), port))
    yield ""
    yield "[workflow]"
    yield f"use = {json.dumps(workflow)}"
    yield from _fields(chosen)
    yield ""
    yield "[observe]"
    yield from _fields(ObserveConfig)
    if stand_ins := [*_stand_ins(catalog())]:
        yield ""
        yield "# Laid over it by `crucible run --profile dry`, to try everything but a model:"
        yield "[profile.dry.adapters]"
        yield from stand_ins


def _stand_ins(found: Catalog) -> Iterator[str]:
    for port in ("training_client", "completer"):
        if name := next((e.name for e in serving(port, found) if is_synthetic(e)), None):
            yield f"{port} = {json.dumps(name)}"


def _needed(config: type[WorkflowConfig]) -> Collection[str]:
    """Return the ports that a run of the examples uses; all of them where that is not known."""
    examples = {n: f.examples[0] for n, f in config.model_fields.items() if f.examples}
    try:
        return config.model_validate(examples).required_ports() or PORTS
    except ValidationError:
        return PORTS


def _adapter(found: Catalog, port: str) -> Iterator[str]:
    installed = list(serving(port, found))
    if not installed:
        yield f"# [adapters.{port}]"
        name, package = next(iter(packages_of(port).items()))
        yield f'# use = "{name}"  # pip install {package}'
        return
    name, *others = (entry.name for entry in installed)
    yield f"[adapters.{port}]"
    yield f"use = {json.dumps(name)}" + (
        f"  # also installed: {shortened(others)}" if others else ""
    )
    try:
        options = options_class(found.find(port, name).load(), name)
    except CrucibleError as error:
        yield from _comment(str(error))
    else:
        yield from _fields(options)


def _fields(model: type[BaseModel]) -> Iterator[str]:
    """Yield every key with its meaning: set to its example, or commented out with its default."""
    for name, field in model.model_fields.items():
        yield from _comment(field.description or "")
        names = variables(field)
        if is_secret(field.annotation):
            source = f"${names[0]}" if names else "the environment"
            yield f"# {name}: a secret, better kept in {source} than here"
        elif names:
            yield f"# {name} = ...  # ${names[0]} if not set"
        elif field.examples or field.is_required():
            yield f"{name} = {toml((field.examples or ['...'])[0])}"
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
