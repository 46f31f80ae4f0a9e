"""One process of a SkyRL tx server: `python skyrl_process.py api|engine ARGUMENTS`.

SkyRL 0.3.0 starts its engine by `uv run`, which is replaced here, and gives Pydantic a `TypedDict`
of the standard library, which Pydantic takes from Python 3.12 on.
"""

from __future__ import annotations

import gc
import importlib
import sys
import typing
from pathlib import Path
from typing import Any

import typing_extensions

if sys.version_info < (3, 12):
    typing.TypedDict = typing_extensions.TypedDict


def main() -> None:
    role = sys.argv.pop(1)
    if role == "engine":
        compute(importlib.import_module("skyrl.tinker.engine"))
    else:
        serve(importlib.import_module("skyrl.tinker.api"))


MAPS = 30_000
"""Of what a process maps into its memory, of which Linux allows 65,530."""


def compute(engine: Any) -> None:
    """Run the engine, as its module does when it is the program, and forget in time what was
    compiled: JAX has a dozen maps for each shape, and dies of too many.
    """
    create = engine.TinkerEngine.process_create_model

    def forget_and_create(self: Any, *arguments: Any) -> Any:
        maps = Path("/proc/self/maps")
        if maps.exists() and maps.read_bytes().count(b"\n") > MAPS:
            importlib.import_module("jax").clear_caches()
            gc.collect()
        return create(self, *arguments)

    engine.TinkerEngine.process_create_model = forget_and_create
    engine.main()


def serve(api: Any) -> None:
    """Run the API, as its module does when it is the program, but for how the engine is started."""
    import argparse

    import uvicorn

    def command(parent: list[str], config: Any) -> list[str]:
        return [sys.executable, __file__, "engine", *api.config_to_argv(config)]

    api._build_uv_run_cmd_engine = command
    parser = argparse.ArgumentParser()
    api.add_model(parser, api.EngineConfig)
    parser.add_argument("--port", type=int, required=True)
    arguments = vars(parser.parse_args())
    port = arguments.pop("port")
    api.app.state.engine_config = api.EngineConfig.model_validate(arguments)
    uvicorn.run(api.app, host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()
