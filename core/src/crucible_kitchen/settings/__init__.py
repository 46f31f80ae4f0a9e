"""What the user chose, and where each value came from.

Layers, highest first: arguments in code, the command line, the environment, the chosen
`[profile.<name>]`, `crucible.toml` (or `[tool.crucible]` of `pyproject.toml`, where there is no
`crucible.toml`). They are merged key by key. A table that names its adapter (`use`) replaces a
lower one that names another, so the options of the adapter you left do not follow you.

A mistake ends nothing here: it is noted, and a misspelt key is read as the nearest known key, so
that the mistakes behind it are found in the same run.

| module | what it does |
| --- | --- |
| `layers` | reads every layer, in order of precedence |
| `file` | finds and reads the file |
| `assignments` | makes layers of environment variables and of arguments on the command line |
| `variables` | reads environment variables, with pydantic-settings |
| `tables` | checks which tables and ports are named, and respells misspelt ones |
| `shell_text` | reads values that were typed at a shell |
| `merge` | merges layers, and knows the source of each value |
| `moved` | merges what was set under two names of one key |
"""

from ..extent import Key
from .layers import gather, in_code, load
from .merge import Layer, Settings, merge
from .moved import move, moved
from .shell_text import miswritten
from .tables import SETTABLE, TABLES

__all__ = [
    "SETTABLE",
    "TABLES",
    "Key",
    "Layer",
    "Settings",
    "gather",
    "in_code",
    "load",
    "merge",
    "miswritten",
    "move",
    "moved",
]
