"""Traces: files of events, and what can be read from them afterwards.

| module | what is in it |
| --- | --- |
| `lines` | the format: an event is a line of JSON |
| `profile` | where the time of a run went |

`crucible_kitchen.observers.jsonl` writes one, and `crucible trace` shows its profile.
"""
