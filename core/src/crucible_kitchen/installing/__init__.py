"""Installing plugins, with pip or uv, and restoring a lock. No plugin is imported.

| module | what is in it |
| --- | --- |
| `installer` | pip or uv, for one environment |
| `names` | the distribution that a name means |
| `wheels` | which plugins the wheels in folders bring |
| `origins` | where an index has what is installed |
| `restoring` | what a lock asks an environment to change |
"""
