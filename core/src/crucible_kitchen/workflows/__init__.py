"""Workflows: plain functions of a kitchen and a configuration, which use ports only.

| module | what is in it |
| --- | --- |
| `supervised` | the workflow of that name |
| `algorithm` | what distinguishes one training workflow from another: three methods |
| `loop` | `train`: the run of any algorithm, with checkpoints, restarts and metrics |
| `rows/` | rows of the dataset store, and the token sequences that they become |
| `runs/` | `Run`, `RunRecord`: what is kept of a run, and by whom it is worked on |
| `config` | the settings that training workflows share |
| `batches`, `rollouts`, `custom_loss`, `evaluation`, `schedules` | parts of a training step |
| `registry` | finds workflows by name and starts them |
"""

from .algorithm import Algorithm, Measure, Metrics, Prepared, TrainingResult
from .batches import Batches, Shuffled, permutation
from .config import (
    ModelConfig,
    OptimizerConfig,
    RowsConfig,
    RunConfig,
    TrainingConfig,
    WorkflowConfig,
)
from .custom_loss import CustomLoss, custom_loss
from .loop import train
from .registry import Workflow, companion, config_class, find, prepare, run, run_in
from .rollouts import Rollout, sample
from .rows.examples import Conversation, PromptCompletion, RowReader, Text
from .rows.prepare import RenderedRows, prepare_rows
from .rows.rendering import Example, Renderer
from .runs import Run, RunRecord, RunState

__all__ = [
    "Algorithm",
    "Batches",
    "Conversation",
    "CustomLoss",
    "Example",
    "Measure",
    "Metrics",
    "ModelConfig",
    "OptimizerConfig",
    "Prepared",
    "PromptCompletion",
    "RenderedRows",
    "Renderer",
    "Rollout",
    "RowReader",
    "RowsConfig",
    "Run",
    "RunConfig",
    "RunRecord",
    "RunState",
    "Shuffled",
    "Text",
    "TrainingConfig",
    "TrainingResult",
    "Workflow",
    "WorkflowConfig",
    "companion",
    "config_class",
    "custom_loss",
    "find",
    "permutation",
    "prepare",
    "prepare_rows",
    "run",
    "run_in",
    "sample",
    "train",
]
