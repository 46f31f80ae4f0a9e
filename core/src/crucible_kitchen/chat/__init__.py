"""Conversations: as people write them, as a model reads them, and what it is to answer.

| module | idea |
| --- | --- |
| `messages` | conversations as people write them, brought into one form |
| `style` | how a template wants what it can be given in several ways |
| `template` | what a model reads of a conversation |
| `shown` | whether what a row says stands in what the model reads |
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
