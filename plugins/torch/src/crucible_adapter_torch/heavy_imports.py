"""Imports of PyTorch and Transformers, without the collector looking on."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Collect no cyclic garbage in the block, in the whole process.

    An import makes objects that stay. The collector visits all of them again and again to find no
    garbage: 0.7 of the 4.1 s of CPU that it takes to import PyTorch 2.13 and Transformers 5.
    Afterwards all objects are old ones, else the next three collections would visit them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():  # else what another part of the program froze would thaw
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()
