"""Which checkpoints a replay has, where the recording did not ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .interactions import Interaction
from .masks import MASK, has_masks
from .values import value_of


@dataclass(frozen=True, slots=True)
class _Event:
    """A checkpoint was saved, or deleted.

    Args:
        call: the call that did it.
        reference: of the checkpoint.
        label: under which it was saved; None if it was deleted.
        masked: whether the label goes on with what is not known.
    """

    call: Interaction
    reference: str
    label: str | None
    masked: bool = False


class Checkpoints:
    """The checkpoints of a recording.

    Args:
        calls: all calls of the cassette, in their order.
        recorded: returns a text in which what varies is as it was recorded, as far as it is known
            what that was.
    """

    def __init__(self, calls: Sequence[Interaction], recorded: Callable[[str], str]) -> None:
        self._recorded = recorded
        self._events = [*_events(calls)]
        self._saved = {each.reference for each in self._events if each.label is not None}
        self._sessions = [each for each in calls if each.name == "start_session"]
        self._lists = [
            (str(each.arguments.get("prefix", "")), {*map(str, value_of(returned))})
            for each in calls
            if each.name == "list_checkpoints"
            and isinstance(returned := each.outcome.get("returned"), list)
        ]

    def listed(self, prefix: str) -> list[str] | None:
        """Return the references of the checkpoints whose label starts with `prefix`, oldest first:
        what was saved so far and not deleted; where no session was started, as where a run is
        deleted, what the recording left.

        Returns:
            None where it is not known: a label is masked, or there may be checkpoints that were
            saved before the recording.
        """
        prefix = self._recorded(prefix)
        if not self._knows(prefix):
            return None
        begun = any(each.taken for each in self._sessions)
        there: dict[str, None] = {}
        for each in self._events:
            if begun and not each.call.taken:
                continue
            if each.label is None:
                there.pop(each.reference, None)
            elif each.label.startswith(prefix):
                there[each.reference] = None
        return [*there]

    def _knows(self, prefix: str) -> bool:
        if any(
            each.masked and prefix.startswith(each.label or "") and prefix != each.label
            for each in self._events
        ):
            return False
        near = [
            (asked, found)
            for asked, found in self._lists
            if asked.startswith(prefix) or prefix.startswith(asked)
        ]
        # A run's prefix is its own; without one, all that was there before is meant.
        all_known = bool(prefix) or any(asked == prefix for asked, _ in near)
        return all_known and all(found <= self._saved for _, found in near)


def _events(calls: Sequence[Interaction]) -> Iterator[_Event]:
    submitted: dict[int, Interaction] = {}
    """Checkpoints that are saved meanwhile, by the number of their future."""
    for each in calls:
        returned = each.outcome.get("returned")
        if each.name == "delete_checkpoint" and "raised" not in each.outcome:
            yield _Event(each, str(each.arguments.get("path")), None)
        elif each.name == "save_checkpoint_async" and isinstance(returned, dict):
            submitted[returned["$handle"]] = each
        elif each.name == "save_checkpoint" and isinstance(returned, str):
            yield _saved(each, each, returned)
        elif each.name == "await_" and isinstance(returned, str):
            yield _saved(each, submitted[each.arguments["future"]["$handle"]], returned)


def _saved(done: Interaction, asked: Interaction, reference: str) -> _Event:
    label = asked.arguments.get("path")
    if not isinstance(label, str):  # too long to be on the cassette
        return _Event(done, reference, "", masked=True)
    masked = has_masks(asked.outcome, label)
    return _Event(done, reference, label.partition(MASK)[0] if masked else label, masked)
