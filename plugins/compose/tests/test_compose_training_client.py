"""What a wrapped training client says about results and storage goes through every wrapper."""

from __future__ import annotations

from typing import Any

import crucible_adapter_compose.faulty
import crucible_adapter_compose.limit
import crucible_adapter_compose.retry
import pytest
from crucible_kitchen import (
    AdapterOptions,
    Kitchen,
    SessionConfig,
    TrainingClient,
    Unavailable,
    hookimpl,
)

NOOP = {"use": "noop", "latency_scale": 0}
ASKED = ["get_info", "check_storage"]


class Options(AdapterOptions):
    inner: TrainingClient


class FailsAtFirst:
    """Answers what it is asked about a session at the third attempt."""

    Options = Options

    def __init__(self) -> None:
        self.attempts: list[str] = []

    @hookimpl
    def around(self, call: Any) -> Any:
        if call.name not in ASKED:
            return call()
        self.attempts.append(call.name)
        if len(self.attempts) < 3:
            raise Unavailable("it may have had an effect")
        return call()


def bound(**adapter: Any) -> TrainingClient:
    return Kitchen({"training_client": adapter}).training_client


@pytest.mark.parametrize("callback", ASKED)
def test_retry_asks_a_session_again(callback: str) -> None:
    fails = FailsAtFirst()
    client = bound(
        use=crucible_adapter_compose.retry.training_client,
        wait=0,
        inner={"use": fails, "inner": NOOP},
    )
    session = client.start_session(SessionConfig("any"))
    getattr(client, callback)(session)
    assert fails.attempts == [callback] * 3


@pytest.mark.parametrize(
    ("wrapper", "options"),
    [
        (crucible_adapter_compose.retry.training_client, {}),
        (crucible_adapter_compose.limit.training_client, {"concurrency": 1}),
        (crucible_adapter_compose.faulty.training_client, {}),
    ],
    ids=["retry", "limit", "faulty"],
)
def test_a_wrapper_passes_on_what_a_session_is_asked(wrapper: Any, options: dict[str, Any]) -> None:
    client = bound(use=wrapper, inner=NOOP, **options)
    session = client.start_session(SessionConfig("any"))
    assert client.get_info(session) == client.inner.get_info(session)  # type: ignore[union-attr]
    client.check_storage(session, 3)
    reference = client.save_checkpoint(session, "run/1")
    assert client.clean("run/") == [reference]


@pytest.mark.parametrize("callback", ASKED)
def test_faulty_fails_them_on_purpose(callback: str) -> None:
    client = bound(
        use=crucible_adapter_compose.faulty.training_client,
        failure_rate=1,
        callbacks=[callback],
        inner=NOOP,
    )
    session = client.start_session(SessionConfig("any"))
    with pytest.raises(Unavailable, match="on purpose"):
        getattr(client, callback)(session)
