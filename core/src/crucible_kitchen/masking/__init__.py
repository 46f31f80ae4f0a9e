"""Secrets are masked wherever something is shown: an option, a message, a record, an event.

| module | what it knows |
| --- | --- |
| `names` | which names say that their value is a secret |
| `urls` | where a URL holds a secret |
| `forms` | how libraries write a secret: `repr`, JSON, percent-encoding, base64 |
| `secrets` | the secrets of a program, and texts without them |
| `models` | models that show no secret |
| `errors` | errors, their notes, details and causes, without secrets |
"""

from .errors import mask_error, without_secrets
from .models import Masked, visible
from .names import says_secret
from .secrets import MASK, SHORTEST, Secrets, is_secret, masked, redacted, shown

__all__ = [
    "MASK",
    "SHORTEST",
    "Masked",
    "Secrets",
    "is_secret",
    "mask_error",
    "masked",
    "redacted",
    "says_secret",
    "shown",
    "visible",
    "without_secrets",
]
