"""Events: what a kitchen reports to its observers about adapter calls and workflows.

| event | attributes |
| --- | --- |
| `adapter.call` | port, adapter and callback, of the adapter that served the call |
| `adapter.around` | the same of each wrapper that the call went through, and depth |
| `workflow.run` | workflow: around everything that a workflow does |
| `workflow.start`, `workflow.stop`, `workflow.exception` | workflow, run_id, ... |
| `workflow.waiting` | run_id, holder, seconds: another process may be working on the run |
| `workflow.interrupted` | workflow, run_id, step: it saves after that step, and ends |
| `workflow.finishing` | workflow, run_id: the record is about to say that the run is done |
| `workflow.restart` | workflow, run_id, step, restart, callback, error |
| `dataset.load` | dataset, split, rows |
| `dataset.render` | purpose, dataset, split, and counts of rows and sequences |
| `dataset.rendering` | purpose, dataset, split, rows rendered so far, total or None |
| `dataset.stream` | dataset, split: a streamed data set is opened |
| `dataset.left_out` | dataset, rows: the names of streamed rows that are too long |
| `training.reference` | purpose, pairs whose reference is computed so far, total |
| `training.step`, `training.eval` | run_id, step, total, metrics |
| `training.early_stop` | run_id, step, metric, best_step, best_value |
| `training.samples` | run_id, step, samples |
| `training.checkpoint` | run_id, step |
| `training.epoch` | run_id, epoch |

Events that take time are spans: their event comes at the end, with `duration_s`, in seconds, and
`error`, the type of the error that ended the span, or None. Spans nest: each event names its
parent, the span within which it happened.

The `adapter.call` of a completer has more. From the request: model, max_tokens, temperature, top_p,
top_k, seed, n, stream, prompts (how many) and prompt_kind (`messages` or `tokens`). From the
result: prompt_tokens, completion_tokens, finish_reasons (how many of each) and, for a batch,
failed. For a stream they cover what was read of it.

Events hold numbers, names and error types, never a secret, and never a row of data, except
`training.samples`, whose samples are for trackers: a trace or a line of text leaves them out.

| module | what is in it |
| --- | --- |
| `event` | an event, an observer |
| `kinds` | a class for each kind that workflows emit |
| `texts` | events without the texts that only trackers show |
| `spans` | spans, and the observers of one kitchen |
| `calls` | the spans of adapter calls |
| `completions` | what the events of completions say |
"""

from .event import Event, Observer, Tracer
from .kinds import (
    DatasetLeftOut,
    DatasetLoad,
    DatasetRender,
    DatasetRendering,
    DatasetStream,
    TrainingCheckpoint,
    TrainingEarlyStop,
    TrainingEpoch,
    TrainingEval,
    TrainingReference,
    TrainingSamples,
    TrainingStep,
    TypedEvent,
    WorkflowException,
    WorkflowFinishing,
    WorkflowInterrupted,
    WorkflowRestart,
    WorkflowRun,
    WorkflowStart,
    WorkflowStop,
    WorkflowWaiting,
    typed,
)
from .spans import UNOBSERVED, Observers, Span
from .texts import without_texts

__all__ = [
    "UNOBSERVED",
    "DatasetLeftOut",
    "DatasetLoad",
    "DatasetRender",
    "DatasetRendering",
    "DatasetStream",
    "Event",
    "Observer",
    "Observers",
    "Span",
    "Tracer",
    "TrainingCheckpoint",
    "TrainingEarlyStop",
    "TrainingEpoch",
    "TrainingEval",
    "TrainingReference",
    "TrainingSamples",
    "TrainingStep",
    "TypedEvent",
    "WorkflowException",
    "WorkflowFinishing",
    "WorkflowInterrupted",
    "WorkflowRestart",
    "WorkflowRun",
    "WorkflowStart",
    "WorkflowStop",
    "WorkflowWaiting",
    "typed",
    "without_texts",
]
