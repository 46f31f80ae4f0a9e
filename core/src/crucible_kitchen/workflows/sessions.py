"""Sessions in which nothing is trained: of weights that are evaluated, of a teacher."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..errors import Unsupported
from ..ports import TrainingClient
from ..types import SessionConfig


@contextlib.contextmanager
def frozen(client: TrainingClient, config: SessionConfig) -> Iterator[Any]:
    """Start a session whose weights stay as they are, and close it at the end.

    Args:
        client: the training client.
        config: which weights; a client that has only trainable sessions starts one of these.
    """
    try:
        session = client.start_session(replace(config, trainable=False))
    except Unsupported:
        session = client.start_session(config)
    try:
        yield session
    finally:
        client.close_session(session)
