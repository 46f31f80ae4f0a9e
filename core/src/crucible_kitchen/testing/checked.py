"""The module that `crucible check` has pytest collect. It holds the current suite."""

from .check import subject

if subject is not None:  # so that other tools can import this module
    TestConformance = subject.suite()
