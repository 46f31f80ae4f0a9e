"""What a blob store promises."""

from __future__ import annotations

from ...ports import BlobStore
from .atomicity import Atomicity
from .contents import Contents
from .memory import Memory
from .names import Names
from .optional import OptionalCallbacks
from .paths import Paths
from .processes import Processes
from .root import Root
from .sequences import Sequences
from .sources import Sources
from .streams import Streams


class BlobStoreConformance(
    Contents,
    Sources,
    Atomicity,
    Paths,
    Names,
    Root,
    Streams,
    Memory,
    Processes,
    OptionalCallbacks,
    Sequences,
):
    """Tests of a blob store. Override the fixture `blob_store`, and `reopen`, `stored` and `root`
    if you can. Each test writes below its own folder, which is deleted where that is supported.
    """

    port = BlobStore
