"""Checkpoints of a server by the labels that they were saved under."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..names import parsed_name, parsed_path
from ..servers.server import Server


def references(server: Server, prefix: str, kinds: str = "cw") -> list[str]:
    """Return the references whose label certainly begins with the prefix, oldest first.

    Args:
        server: which to ask.
        prefix: of the label.
        kinds: any of `names.Kind`.
    """
    found = []
    for saved, reference in server.saved():
        path = parsed_path(reference)
        name = path and parsed_name(path.name)
        if name and name.kind in kinds and name.begins_with(prefix):
            found.append((saved, reference))
    return [reference for _, reference in sorted(found)]


def delete(server: Server, reference: str) -> None:
    """Delete a checkpoint; what is not one is fine."""
    if parsed_path(reference) is not None:
        server.delete(reference)


def clean(server: Server, prefix: str, keep: Iterable[str], dry_run: bool) -> Sequence[str]:
    """Delete what was saved under the prefix and is not kept; return it.

    A server leaves nothing unfinished, so without a prefix there is nothing to do.
    """
    if not prefix:
        return []
    kept = {*keep}
    doomed = [each for each in references(server, prefix) if each not in kept]
    if not dry_run:
        for each in doomed:
            server.delete(each)
    return doomed
