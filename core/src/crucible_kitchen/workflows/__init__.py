"""Workflows: plain functions of a kitchen and a configuration, which use ports only.

| module | what is in it |
| --- | --- |
| `supervised`, `preference`, `reinforcement` | the workflows of these names |
| `distillation`, `evaluate` | the same |
| `algorithm` | what distinguishes one training workflow from another: three methods |
| `loop`, `evaluator`, `standing` | `train`: the run of any algorithm; its evaluations |
| `config`, `batches`, `schedules`, `sessions`, `checks` | what every training workflow has |
| `rows/`, `pairs` | rows of the dataset store, and the token sequences that they become |
| `problems/`, `episodes/` | what a model is asked for a reward, and how it is played |
| `sampling/` | the weights that are being trained, in the completer |
| `losses/`, `teachers/`, `evaluation/` | parts of training steps and of evaluations |
| `runs/` | `Run`, `RunRecord`: what is kept of a run, and by whom it is worked on |
| `planning/` | what a run would do, for `crucible run --dry-run` |
| `registry`, `foreign` | workflows by name; names of settings in other trainers |
"""

from .algorithm import (
    Algorithm,
    Evaluation,
    Measure,
    Metrics,
    Prepared,
    Sample,
    TrainingResult,
)
from .batches import Batches, Shuffled, permutation
from .config import (
    ModelConfig,
    OptimizerConfig,
    RowsConfig,
    RunConfig,
    TrainingConfig,
    WorkflowConfig,
)
from .episodes.play import Episode, EpisodesConfig, Rules, play, rules_of
from .loop import train
from .losses.custom_loss import CustomLoss, check_same_model, custom_loss
from .pairs import Pair, Pairs, PairsConfig, prepare_pairs
from .planning import Plan, plan_training
from .problems.prepare import Problem, Problems, ProblemsConfig, prepare_problems
from .registry import Workflow, companion, config_class, find, prepare, run, run_in
from .rows.examples import Conversation, PromptCompletion, RowReader, Text
from .rows.prepare import RenderedRows, prepare_rows
from .rows.rendering import Example, Renderer
from .runs import Run, RunRecord, RunState
from .sampling.canary import NotFinite, StaleWeights
from .sampling.rollouts import Rollout, sample
from .sampling.sampler import Sampler, SamplerConfig

__all__ = [
    "Algorithm",
    "Batches",
    "Conversation",
    "CustomLoss",
    "Episode",
    "EpisodesConfig",
    "Evaluation",
    "Example",
    "Measure",
    "Metrics",
    "ModelConfig",
    "NotFinite",
    "OptimizerConfig",
    "Pair",
    "Pairs",
    "PairsConfig",
    "Plan",
    "Prepared",
    "Problem",
    "Problems",
    "ProblemsConfig",
    "PromptCompletion",
    "RenderedRows",
    "Renderer",
    "Rollout",
    "RowReader",
    "RowsConfig",
    "Rules",
    "Run",
    "RunConfig",
    "RunRecord",
    "RunState",
    "Sample",
    "Sampler",
    "SamplerConfig",
    "Shuffled",
    "StaleWeights",
    "Text",
    "TrainingConfig",
    "TrainingResult",
    "Workflow",
    "WorkflowConfig",
    "check_same_model",
    "companion",
    "config_class",
    "custom_loss",
    "find",
    "permutation",
    "plan_training",
    "play",
    "prepare",
    "prepare_pairs",
    "prepare_problems",
    "prepare_rows",
    "rules_of",
    "run",
    "run_in",
    "sample",
    "train",
]
