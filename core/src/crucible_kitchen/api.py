"""The public API: what `crucible_kitchen` names, which imports it when it is first used."""

from .adapters.finding import imported
from .calls.call import Call
from .calls.resources import Resource, resource
from .calls.streams import Stream
from .chat import end_of_turn
from .environments import Environment, EnvironmentOptions, Observation, Step
from .errors import (
    AdapterError,
    AdapterForbidden,
    AdapterLoadError,
    AdapterNotFound,
    AdapterTimeout,
    AlreadyExists,
    BindError,
    ConfigurationError,
    CrucibleError,
    CrucibleWarning,
    InvalidInput,
    NotFound,
    NotRecorded,
    PortNotConfigured,
    RateLimited,
    SessionClosed,
    SessionFailed,
    Unauthorized,
    Unavailable,
    Unsupported,
    causes,
    check_positive,
    explain_os_errors,
)
from .events import Event, Observer
from .hookspecs import PING_TIMEOUT, helper, hookimpl
from .kitchen import Kitchen
from .losses import LOSS_FUNCTIONS, loss_config, validate_datums
from .messages.spelling import did_you_mean
from .observers.tracker import ObserverOptions, TrackedRun, Tracker
from .options.adapter_options import AdapterOptions
from .options.environment import FromEnv
from .options.frozen import Frozen
from .options.paths import LocalPath, check_writable, expand_home
from .options.renamed import Renamed
from .options.texts import Keyword, Name, Template
from .ports import (
    PORTS,
    BlobStore,
    Completer,
    DatasetStore,
    HubClient,
    MetricsStore,
    TrainingClient,
)
from .types import (
    AdamParams,
    Array,
    Completion,
    CompletionChunk,
    Datum,
    EncodedTextChunk,
    FinishReason,
    FloatArray,
    ForwardBackwardResult,
    Future,
    ImageChunk,
    IntArray,
    LoraConfig,
    Message,
    MetricEntry,
    ModelInput,
    OptimStepResult,
    Prompt,
    SamplingParams,
    SessionConfig,
    Tokenizer,
    Usage,
    check_metric,
)
from .version import __version__
from .workflows import (
    Algorithm,
    Example,
    Measure,
    Prepared,
    RowsConfig,
    Run,
    RunRecord,
    TrainingConfig,
    TrainingResult,
    WorkflowConfig,
    custom_loss,
    run,
    train,
)

__all__ = [
    # the kitchen
    "Kitchen",
    "run",
    # for workflows; crucible_kitchen.workflows has more
    "Algorithm",
    "Example",
    "Measure",
    "Prepared",
    "RowsConfig",
    "Run",
    "RunRecord",
    "TrainingConfig",
    "TrainingResult",
    "WorkflowConfig",
    "train",
    # ports
    "PORTS",
    "TrainingClient",
    "DatasetStore",
    "BlobStore",
    "HubClient",
    "MetricsStore",
    "Completer",
    # for options and configurations
    "AdapterOptions",
    "Frozen",
    "FromEnv",
    "Keyword",
    "Name",
    "Renamed",
    "Template",
    # for observers
    "ObserverOptions",
    "TrackedRun",
    "Tracker",
    # for environments
    "Environment",
    "EnvironmentOptions",
    "Observation",
    "Step",
    "imported",
    # for adapters
    "PING_TIMEOUT",
    "Call",
    "LocalPath",
    "Resource",
    "causes",
    "check_metric",
    "check_positive",
    "check_writable",
    "did_you_mean",
    "expand_home",
    "explain_os_errors",
    "helper",
    "hookimpl",
    "resource",
    "end_of_turn",
    "validate_datums",
    "loss_config",
    # values
    "AdamParams",
    "Array",
    "Completion",
    "CompletionChunk",
    "Datum",
    "EncodedTextChunk",
    "Event",
    "FinishReason",
    "FloatArray",
    "ForwardBackwardResult",
    "Future",
    "ImageChunk",
    "IntArray",
    "LOSS_FUNCTIONS",
    "LoraConfig",
    "Message",
    "MetricEntry",
    "ModelInput",
    "Observer",
    "OptimStepResult",
    "Prompt",
    "SamplingParams",
    "SessionConfig",
    "Stream",
    "Tokenizer",
    "Usage",
    "custom_loss",
    # errors
    "CrucibleError",
    "CrucibleWarning",
    "ConfigurationError",
    "PortNotConfigured",
    "AdapterNotFound",
    "AdapterForbidden",
    "AdapterLoadError",
    "BindError",
    "AdapterError",
    "NotFound",
    "AlreadyExists",
    "InvalidInput",
    "Unauthorized",
    "RateLimited",
    "AdapterTimeout",
    "Unavailable",
    "Unsupported",
    "NotRecorded",
    "SessionClosed",
    "SessionFailed",
    "__version__",
]
