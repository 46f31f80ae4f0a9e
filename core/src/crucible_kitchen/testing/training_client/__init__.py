"""What a training client promises."""

from __future__ import annotations

from ...ports import TrainingClient
from .bad_input import BadInput
from .checkpoints import Checkpoints
from .cleaning import Cleaning
from .exporting import Exporting
from .failure import Failure
from .forward import Forward
from .futures import Futures
from .inputs import Inputs
from .losses import Losses
from .preflight import Preflight
from .processes import Processes
from .results import Results
from .sampling import Sampling
from .sequences import Sequences
from .sessions import Sessions
from .steps import Steps


class TrainingClientConformance(
    Futures,
    Results,
    Losses,
    Steps,
    BadInput,
    Inputs,
    Forward,
    Checkpoints,
    Cleaning,
    Preflight,
    Processes,
    Sessions,
    Failure,
    Sampling,
    Exporting,
    Sequences,
):
    """Tests of a training client. Override the fixture `training_client`, then `model` and
    `lora_rank` to say what is trained, and the others where you can. Sessions are closed, and
    checkpoints deleted where that is supported.

    Models are compared by the log probabilities that they give. Whatever dropout there is must be
    0 in the model that is given.
    """

    port = TrainingClient
