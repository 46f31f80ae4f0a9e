"""The module that `crucible check` has pytest collect. It holds the suite of the moment."""

from .check import subject

if subject is not None:  # so that other tools may import it, too
    TestConformance = subject.suite()
