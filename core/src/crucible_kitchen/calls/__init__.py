"""The way of a call to an adapter.

| module | what is in it |
| --- | --- |
| `dispatch` | the way itself: through wrappers to the callback, and back |
| `contract` | what is known about each callback of a port |
| `translation` | what a caller sees of an adapter's error |
| `port`, `port_schema` | a bound adapter, and how options hold one |
| `streams` | what callbacks that stream return |
| `resources` | what an adapter keeps between calls |
| `closing` | the end of adapters, within a limited time |
"""
