"""What runs were started with, as flat tables, and what differs between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..workflows.runs import RunRecord

Flat: TypeAlias = dict[str, Any]
"""Values by their dotted path, such as `workflow.adam.beta1`."""


def flat(value: Any, at: str = "") -> Flat:
    """Return plain data as one table of dotted paths; lists and empty tables are values."""
    if not isinstance(value, Mapping) or not (value or not at):
        return {at: value}
    found: Flat = {}
    for name, item in value.items():
        found |= flat(item, f"{at}.{name}" if at else str(name))
    return found


def settings_of(record: RunRecord) -> Flat:
    """Return what a run was started with: settings, adapters, versions, and digests of its data."""
    about = {
        "workflow": {"use": record.workflow, **record.config},
        "adapters": record.adapters,
        "packages": record.packages,
        "git_commit": record.git_commit,
        "from_checkpoint": record.from_checkpoint,
        "depends_on": record.depends_on,
    }
    return flat(about)


def differences(records: Sequence[RunRecord | None]) -> dict[str, list[Any]]:
    """Return the settings in which runs differ: the value of each run, None where it has none."""
    tables = [{} if record is None else settings_of(record) for record in records]
    known = [table for record, table in zip(records, tables, strict=True) if record is not None]
    names = dict.fromkeys(name for table in tables for name in table)
    return {
        name: [table.get(name) for table in tables]
        for name in names
        if any(table.get(name) != known[0].get(name) for table in known)
    }
