"""What the id of a run stands for, where weights are named."""

from __future__ import annotations

from ...errors import ConfigurationError
from ...kitchen import Kitchen
from ..config import check_run_id
from .record import read


def weights_of(kitchen: Kitchen, model: str, setting: str) -> str:
    """Return the model reference of a run's weights, or the name itself if it is not a run's id.

    Args:
        kitchen: its blob store has the records.
        model: the name of a model, or the id of a run.
        setting: where the name was given, such as `workflow.model`; begins the message.

    Raises:
        ConfigurationError: the run has no weights.
    """
    try:
        check_run_id(model)
    except ValueError:  # it cannot be the id of a run
        return model
    record = read(kitchen, model)
    if record is None:
        return model
    if record.weights is None:
        raise ConfigurationError(
            f"{setting}: the run {model!r}, which is {record.status}, has no weights to sample from"
        )
    return record.weights
