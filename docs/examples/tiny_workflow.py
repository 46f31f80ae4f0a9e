"""A workflow of one's own: fit a model to a data set's texts, one row a step.

crucible run workflow.use=docs/examples/tiny_workflow.py:fit ...
"""

from __future__ import annotations

import numpy as np
from crucible_kitchen import Datum, Kitchen, ModelInput, SessionConfig, WorkflowConfig


class FitConfig(WorkflowConfig):
    model: str
    """Model to train."""
    dataset: str
    """Data set with a field `text`."""
    steps: int = 10
    """Rows to learn from, one a step."""
    learning_rate: float = 1e-3
    """Learning rate."""

    def required_ports(self) -> tuple[str, ...]:
        return ("training_client", "dataset_store", "metrics_store")


def fit(kitchen: Kitchen, config: FitConfig) -> dict[str, float]:
    """Take one step for each row; return the first and the last loss, in nats a token."""
    client, store = kitchen.training_client, kitchen.dataset_store
    rows = store.to_list(store.take(store.load_dataset(config.dataset, "train"), config.steps))
    session = client.start_session(SessionConfig(config.model))
    encode = client.helper("get_tokenizer")(session).encode
    losses = []
    for step, row in enumerate(rows, 1):
        tokens = np.array(encode(row["text"]))
        # Losses are sums, so the weights make it a mean.
        weights = np.full(len(tokens) - 1, 1 / (len(tokens) - 1), np.float32)
        datum = Datum(
            ModelInput.from_ints(tokens[:-1]), {"target_tokens": tokens[1:], "weights": weights}
        )
        # Submit both, then wait for both: the backend is never idle in between.
        loss = client.forward_backward(session, [datum])
        update = client.optim_step(session, config.learning_rate)
        losses.append(client.await_(loss).loss)
        client.await_(update)
        kitchen.metrics_store.record("fit", "train_mean_nll", losses[-1], step)
    kitchen.metrics_store.flush("fit")
    client.close_session(session)
    return {"first": losses[0], "last": losses[-1]}
