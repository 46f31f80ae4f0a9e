"""A badge for a README: what the report cards of a package say, as an SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..messages.counts import counted
from .report import ReportCard

_HEIGHT, _PADDING = 20, 6
_WIDTH_OF_A_CHARACTER = 6.6  # of Verdana at 11 px, in px; `textLength` fits the text to it
_GREY, _GREEN, _YELLOW, _RED = "#555", "#3a3", "#b80", "#c33"
_LABEL = "crucible conformance"

_TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" \
aria-label="{title}">
  <title>{title}</title>
  <rect width="{width}" height="{height}" rx="3" fill="{color}"/>
  <path d="M3 0h{left_end}v{height}H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="{grey}"/>
  <g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
    <text x="{padding}" y="14" textLength="{label_length}">{label}</text>
    <text x="{message_x}" y="14" textLength="{message_length}">{message}</text>
  </g>
</svg>
"""


def badge(cards: Sequence[ReportCard]) -> str:
    """Return a badge with the level of the kit that all of these cards reach, as SVG.

    It is complete in itself: a page that shows it asks no other server.
    """
    failed = sum(card.counts["failed"] for card in cards)
    reached = [card.level if card.counts["warning"] else card.kit for card in cards]
    level = min(reached, key=lambda text: [*map(int, text.split("."))])
    if failed:
        message, color = f"{failed} failed", _RED
    elif not all(card.ok for card in cards):
        message, color = "checked in part", _YELLOW
    elif known := sum(card.counts["xfailed"] for card in cards):
        message = f"level {level}, {counted(known, 'known failure')}"
        color = _YELLOW
    else:
        message, color = f"level {level}", _GREEN
    label_length, message_length = (
        round(len(text) * _WIDTH_OF_A_CHARACTER) for text in (_LABEL, message)
    )
    left = label_length + 2 * _PADDING
    return _TEMPLATE.format(
        width=left + message_length + 2 * _PADDING,
        height=_HEIGHT,
        title=escape(f"{_LABEL}: {message}"),
        color=color,
        grey=_GREY,
        left_end=left - 3,
        padding=_PADDING,
        label=escape(_LABEL),
        label_length=label_length,
        message=escape(message),
        message_x=left + _PADDING,
        message_length=message_length,
    )
