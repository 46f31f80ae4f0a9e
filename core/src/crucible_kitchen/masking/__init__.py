"""Secrets are masked wherever something is shown: an option, a message, a record, an event.

| module | what it knows |
| --- | --- |
| `names` | which names say that their value is a secret |
| `urls` | where a URL holds a secret |
| `forms` | how libraries write a secret: `repr`, JSON, percent-encoding, base64 |
| `mask` | the mask that stands for a secret |
| `evident` | texts without the secrets that are evident in them |
| `secrets` | the secrets that a program knows, and texts without them |
| `data` | plain data without secrets |
| `models` | models that show no secret |
| `errors` | errors, their notes, details and causes, without secrets |
"""
