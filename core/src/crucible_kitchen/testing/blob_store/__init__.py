"""What a blob store promises."""

from __future__ import annotations

from ...ports import BlobStore
from .atomicity import Atomicity
from .contents import Contents
from .optional import OptionalCallbacks
from .paths import Paths
from .sequences import Sequences
from .streams import Streams


class BlobStoreConformance(Contents, Atomicity, Paths, Streams, OptionalCallbacks, Sequences):
    """Tests of a blob store. Override the fixture `blob_store`, and `reopen` and `stored` if
    you can. Each test writes below its own folder, which is deleted where that is supported.
    """

    port = BlobStore
