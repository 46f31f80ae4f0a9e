"""Adapters: which are installed, and how one becomes a port.

| module | what is in it |
| --- | --- |
| `discovery` | what is installed, from package metadata alone |
| `metadata` | what the metadata of each package says |
| `remembered` | what it said when it was last read |
| `finding` | what a name means: something installed, or a path to import |
| `binding` | an adapter and its options become a port |
| `known_packages` | what may be suggested although it is not installed |
"""
