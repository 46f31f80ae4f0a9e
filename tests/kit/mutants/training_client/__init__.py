"""Training clients with one fault each."""

from __future__ import annotations

from . import (
    bad_input,
    checkpoints,
    exporting,
    forward,
    futures,
    inputs,
    losses,
    preflight,
    results,
    sessions,
    steps,
)

MUTANTS = [
    *futures.MUTANTS,
    *results.MUTANTS,
    *losses.MUTANTS,
    *steps.MUTANTS,
    *bad_input.MUTANTS,
    *inputs.MUTANTS,
    *forward.MUTANTS,
    *checkpoints.MUTANTS,
    *sessions.MUTANTS,
    *preflight.MUTANTS,
    *exporting.MUTANTS,
]
