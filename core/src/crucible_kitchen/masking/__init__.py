"""Secrets are masked wherever something is shown: an option, a message, a record, an event.

| module | what it knows |
| --- | --- |
| `names` | which names say that what they name is a secret |
| `urls` | where a URL holds one |
| `forms` | what libraries make of a secret: `repr`, JSON, percent-encoding, base64 |
| `secrets` | the secrets of a program, and texts without them |
| `models` | models whose looks are without secrets |
| `errors` | errors, their notes, details and causes, without secrets |
"""

from .errors import clean, without
from .models import Masked, visible
from .names import says_secret
from .secrets import MASK, SHORTEST, Secrets, is_secret, masked, redacted, shown

__all__ = [
    "MASK",
    "SHORTEST",
    "Masked",
    "Secrets",
    "clean",
    "is_secret",
    "masked",
    "redacted",
    "says_secret",
    "shown",
    "visible",
    "without",
]
