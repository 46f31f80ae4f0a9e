"""Crucible Kitchen: write the post-training loop once; pick the backend by name.

What this module names is the public API, and so are `crucible_kitchen.hookspecs` (the contract),
`crucible_kitchen.events` (for observers) and `crucible_kitchen.testing` (the conformance kit);
everything else may change. The names are imported when the first of them is used (see `api`), so
that the command hears signals before its slow imports.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which takes longer to import than everything before main()
if TYPE_CHECKING:
    from typing import Any

    from .api import *  # noqa: F403
    from .api import __all__ as __all__
    from .api import __version__ as __version__
else:

    def __getattr__(name: str) -> Any:
        api = _api()
        if name == "__all__" or name in api.__all__:
            return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_api().__all__})

    def _api() -> Any:
        # Not `from . import`, which asks this module for it first.
        from importlib import import_module

        return import_module(".api", __name__)
