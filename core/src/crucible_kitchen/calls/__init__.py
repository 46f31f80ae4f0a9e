"""The way of a call to an adapter.

| module | what is in it |
| --- | --- |
| `dispatch` | a bound adapter's callbacks, and where calls to each of them go |
| `route` | what a call of one callback does, put together when the adapter is bound |
| `call` | a call that a wrapper passes on |
| `contract` | what is known about each callback of a port |
| `translation` | what a caller sees of an adapter's error |
| `port`, `port_schema` | a bound adapter, and how options hold one |
| `streams` | what callbacks that stream return |
| `resources` | what an adapter keeps between calls |
| `closing` | the end of adapters, within a limited time |
"""
