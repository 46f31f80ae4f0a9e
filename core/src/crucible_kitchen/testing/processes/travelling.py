"""What is sent to another process: pickles, in which adapters are bound again when they arrive."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ...calls.port import Port
from ...errors import described
from ...kitchen import Kitchen
from ...ports import PORTS


class CannotTravel(Exception):
    """Something cannot be sent to another process; the message says what and why."""


def packed(value: Any) -> bytes:
    """Return a value as bytes. Modules and adapters, at any depth, are sent by what they are made
    of, and relative paths by where they lead from here.

    Raises:
        CannotTravel: a part of it does not pickle.
    """
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    except CannotTravel:
        raise
    except Exception as error:
        raise CannotTravel(described(error)) from error
    return buffer.getvalue()


def unpacked(message: bytes) -> Any:
    """Return what was packed. Only for what a process of the kit's own has sent."""
    return pickle.loads(message)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Port):
            # Those that were set: defaults are found there as any process would find them.
            options = {
                name: getattr(value.options, name) for name in value.options.model_fields_set
            }
            return _bound, (value.name, value.module, options)
        if isinstance(value, ModuleType):
            return importlib.import_module, (_importable(value),)
        if isinstance(value, Path) and not value.is_absolute():
            return type(value), (os.path.abspath(value),)
        return NotImplemented


def _importable(module: ModuleType) -> str:
    """Return the name by which any process can import a module."""
    name = module.__name__
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin != getattr(module, "__file__", found.origin):
        raise CannotTravel(f"the module {name} cannot be imported by its name")
    return name


def _bound(port: str, adapter: Any, options: Mapping[str, Any]) -> Port:
    """Bind an adapter to options that were set."""
    return Kitchen(adapters={port: {"use": adapter, **options}}).port(PORTS[port])
