"""What a dataset store promises."""

from __future__ import annotations

from ...ports import DatasetStore
from .contents import Contents
from .handles import Handles
from .lines import Lines
from .positions import Positions
from .processes import Processes
from .selection import Selection
from .sequences import Sequences
from .shuffling import Shuffling
from .splits import Splits
from .streams import Streams
from .threads import Threads
from .values import Values


class DatasetStoreConformance(
    Contents,
    Values,
    Lines,
    Handles,
    Shuffling,
    Positions,
    Processes,
    Selection,
    Splits,
    Streams,
    Threads,
    Sequences,
):
    """Tests of a dataset store. Override the fixture `dataset_store`, and `reopen` if you can.

    By default it opens a JSON Lines file that the kit writes. A store that does not read such
    files overrides `dataset_id`; with `rows`, the kit need not believe the store's own `to_list`.
    Every test that can be is also run on a handle that streams.
    """

    port = DatasetStore
