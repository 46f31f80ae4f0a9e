"""Conversations: as people write them, as a model reads them, and the answers in them.

| module | idea |
| --- | --- |
| `messages` | conversations as people write them, brought into one form |
| `style` | the forms in which a template takes its input |
| `template` | what a model reads of a conversation |
| `shown` | whether what the model reads contains what the row says |
| `answers` | where an answer begins, and what ends its turn |

Each imports only those above it.
"""

from .answers import Answer, answer, end_of_turn, in_common
from .messages import ChatMessage, weight_of
from .shown import check_messages
from .template import ChatTemplate

__all__ = [
    "Answer",
    "ChatMessage",
    "ChatTemplate",
    "answer",
    "check_messages",
    "end_of_turn",
    "in_common",
    "weight_of",
]
