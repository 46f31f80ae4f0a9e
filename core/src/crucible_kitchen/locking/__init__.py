"""Locks: the distributions that a kitchen is made of, written down and compared.

| module | what is in it |
| --- | --- |
| `plugins` | which plugins the settings name |
| `environment` | what is installed in an environment, and what that requires |
| `digests` | what a distribution's files are, in one digest |
| `sources` | where a distribution came from, as far as that is known here |
| `lock` | a lock, and how it differs from another |
| `taking` | the lock of what is installed now |
| `pylock` | a lock as a `pylock.toml` (PEP 751) |

No plugin is imported: all is read from the metadata of what is installed.
"""

from .lock import Lock, Locked
from .taking import Taken, take, unlike

__all__ = ["Lock", "Locked", "Taken", "take", "unlike"]
