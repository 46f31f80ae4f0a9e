"""What a completer promises."""

from __future__ import annotations

from ...ports import Completer
from .batches import Batches
from .logprobs import Logprobs
from .processes import Processes
from .prompts import Prompts
from .readings import Readings
from .sampling import Sampling
from .scores import Scores
from .seeds import Seeds
from .single import SingleCompletions
from .stopping import Stopping
from .streams import Streams


class CompleterConformance(
    SingleCompletions,
    Seeds,
    Batches,
    Stopping,
    Logprobs,
    Processes,
    Prompts,
    Readings,
    Sampling,
    Streams,
    Scores,
):
    """Tests of a completer. Override the fixture `completer`; `model`, `prompt` and `token_prompt`
    where the defaults do not fit; `context_length`, `trainer`, `in_flight` and `reopen` if you can.

    Completions are compared with each other, so a seed must mean something: bind an adapter whose
    server has one generator for all requests in flight so that it sends one at a time.
    """

    port = Completer
