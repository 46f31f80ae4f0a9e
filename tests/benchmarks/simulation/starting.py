"""Every node of a fleet fetches the model at once, from a hub with a quota."""

from __future__ import annotations

from dataclasses import dataclass

from crucible_adapter_compose import retry
from crucible_kitchen import AdapterError, Kitchen

import kitchen_noop

from . import quota
from .clock import VirtualTime


@dataclass(frozen=True, slots=True)
class Started:
    """How a start went.

    Args:
        seconds: until the last node had every file.
        failed: nodes that gave up.
    """

    seconds: float
    failed: int


def start(nodes: int, files: int, requests: int, *, attempts: int = 5) -> Started:
    """Have each of `nodes` fetch `files` files, one after the other.

    Args:
        nodes: how many.
        files: of the model.
        requests: that the hub answers in five minutes; one a file.
        attempts: `max_attempts` of `retry`.
    """
    clock = VirtualTime()
    hub = {
        "use": quota,
        "requests": requests,
        "inner": kitchen_noop.ADAPTERS["hub_client"],
    }
    table = {"use": retry.hub_client, "max_attempts": attempts, "wait": 0, "inner": hub}
    failed = 0
    with Kitchen({"hub_client": table}) as kitchen:

        def fetch() -> None:
            nonlocal failed
            try:
                for _ in range(files):
                    kitchen.hub_client.download("any/model", "config.json")
            except AdapterError:
                failed += 1

        clock.run(lambda: clock.every([fetch] * nodes))
    return Started(clock.now, failed)
