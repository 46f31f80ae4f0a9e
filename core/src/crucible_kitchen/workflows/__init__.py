"""Workflows: plain functions of a kitchen and a configuration, which use ports only."""

from .config import (
    ModelConfig,
    OptimizerConfig,
    RowsConfig,
    RunConfig,
    TrainingConfig,
    WorkflowConfig,
)
from .registry import Workflow, companion, config_class, find, prepare, run, run_in

__all__ = [
    "ModelConfig",
    "OptimizerConfig",
    "RowsConfig",
    "RunConfig",
    "TrainingConfig",
    "Workflow",
    "WorkflowConfig",
    "companion",
    "config_class",
    "find",
    "prepare",
    "run",
    "run_in",
]
