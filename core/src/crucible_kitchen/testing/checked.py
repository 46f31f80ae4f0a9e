"""The module that `crucible check` has pytest collect. It holds the current suites."""

from .check import subject

if subject is not None:  # so that other tools can import this module
    globals().update(subject.suites())
