"""Adapters: which are installed, and how one becomes a port.

| module | what is in it |
| --- | --- |
| `discovery` | what is installed, from package metadata alone |
| `binding` | an adapter and its options become a port |
| `known_packages` | what may be suggested although it is not installed |
"""
