"""`crucible init`: a commented crucible.toml to start from."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ..binding import options_class
from ..discovery import KNOWN_ADAPTERS, Catalog, catalog
from ..errors import ConfigurationError, CrucibleError
from ..options import is_secret, variables
from ..workflows import config_class, find
from .console import note

EXAMPLES = {"model": "Qwen/Qwen3-0.6B", "dataset": "train.jsonl"}
"""Values for keys of the workflow that have no default."""


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("crucible.toml"),
    workflow: Annotated[str, typer.Option(help="The workflow to configure.")] = "supervised",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write a commented crucible.toml for the adapters that are installed."""
    if path.exists() and not force:
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
    found = catalog()
    for port in KNOWN_ADAPTERS:
        yield ""
        yield from _adapter(found, port)
    yield ""
    yield "[workflow]"
    yield f"use = {json.dumps(workflow)}"
    yield from _fields(config_class(find(workflow)), EXAMPLES)
    yield ""
    yield "# Laid over the above by `crucible run --profile dry`:"
    yield "# [profile.dry.adapters]"
    for port in KNOWN_ADAPTERS:
        yield f'# {port} = "noop"'


def _adapter(found: Catalog, port: str) -> Iterator[str]:
    installed = sorted({e.name for e in found.entries if e.port == port}, key=lambda n: n == "noop")
    if not installed:
        yield f"# [adapters.{port}]"
        yield f'# use = "{KNOWN_ADAPTERS[port][-1]}"  # pip install crucible-adapter-...'
        return
    yield f"[adapters.{port}]"
    others = f"  # also installed: {', '.join(installed[1:])}" if installed[1:] else ""
    yield f"use = {json.dumps(installed[0])}{others}"
    try:
        options = options_class(found.find(port, installed[0]).load(), installed[0])
    except CrucibleError as error:
        yield from _comment(str(error))
    else:
        yield from _fields(options, {})


def _fields(model: type[BaseModel], examples: dict[str, Any]) -> Iterator[str]:
    """Yield every key with its meaning: required ones to fill in, others commented out."""
    for name, field in model.model_fields.items():
        yield from _comment(field.description or "")
        names = variables(field)
        if is_secret(field.annotation) or names:
            source = f"${names[0]}" if names else "the environment"
            yield f"# {name}: a secret, better kept in {source} than here"
        elif field.is_required():
            yield f"{name} = {_toml(examples.get(name, '...'))}"
        else:
            computed = field.default_factory_takes_validated_data
            default = None if computed else field.get_default(call_default_factory=True)
            if default is None or default is PydanticUndefined:
                yield f"# {name} = ..."
            else:
                yield f"# {name} = {_toml(default)}"


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(text, 88):
        yield f"# {line}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if hasattr(value, "__dataclass_fields__"):
        value = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        inside = ", ".join(f"{k} = {_toml(v)}" for k, v in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return json.dumps(str(value), ensure_ascii=False)
