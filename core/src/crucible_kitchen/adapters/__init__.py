"""Adapters: which are installed, and how one becomes a port.

| module | what is in it |
| --- | --- |
| `discovery` | what is installed, from package metadata alone |
| `metadata` | what the metadata of each package says |
| `contents` | the files of a package, and their hashes |
| `cards` | the report cards in installed packages are read |
| `installed_card` | one of them, and what it says |
| `card_files` | the files in which they are |
| `build_hook` | how they get into a wheel |
| `kit` | the level and the digest of the conformance kit |
| `remembered` | what was found out when it was last read |
| `finding` | what a name means: something installed, or a path to import |
| `binding` | an adapter and its options become a port |
| `known_packages` | what may be suggested although it is not installed |
"""
