"""Adapters in another process, for promises that no single process can show to be kept.

| module | what it does |
| --- | --- |
| `interpreter` | a Python process that runs functions for this one |
| `serving` | what runs in that process |
| `travelling` | what is sent there: adapters are bound again from their module and their options |
| `elsewhere` | one adapter there, which is what tests use |
| `state` | what all threads of a process share, and whether calls leave it alone |
| `places` | texts that may be paths, for a process with another working directory |
"""

from .elsewhere import Elsewhere, Interpreters
from .interpreter import Interpreter, ProcessDied

__all__ = ["Elsewhere", "Interpreter", "Interpreters", "ProcessDied"]
