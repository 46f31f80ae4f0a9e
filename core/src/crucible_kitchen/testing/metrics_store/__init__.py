"""What a metrics store promises."""

from __future__ import annotations

from ...ports import MetricsStore
from .concurrency import Concurrency
from .entries import Entries
from .names import Names
from .processes import Processes
from .record_many import RecordMany
from .recording import Recording
from .runs import Runs
from .sequences import Sequences
from .steps import Steps
from .together import Together
from .values import Values


class MetricsStoreConformance(
    Recording,
    Values,
    Steps,
    Names,
    Entries,
    Concurrency,
    Processes,
    RecordMany,
    Together,
    Runs,
    Sequences,
):
    """Tests of a metrics store. Override the fixture `metrics_store`, and `reopen` and `stored` if
    you can. Each test has its own runs, which stay, since a metrics store cannot delete.
    """

    port = MetricsStore
