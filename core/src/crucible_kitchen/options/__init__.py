"""Options: what a user may set about an adapter, and the types of its fields.

| module | what is in it |
| --- | --- |
| `adapter_options` | `AdapterOptions`, the base of every adapter's options |
| `frozen` | `Frozen`, the base of every table that a user writes |
| `environment` | defaults from environment variables |
| `renamed` | names that options had before |
| `texts`, `paths` | types of text and of paths |
"""
