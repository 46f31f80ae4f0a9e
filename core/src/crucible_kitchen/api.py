"""The public API: what `crucible_kitchen` names, which imports it when it is first used."""

from .chat import end_of_turn
from .dispatch import Call
from .environment import FromEnv
from .errors import (
    AdapterError,
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
from .frozen import Frozen
from .hookspecs import PING_TIMEOUT, helper, hookimpl
from .kitchen import Kitchen
from .losses import LOSS_FUNCTIONS, custom_loss, loss_config, validate_datums
from .options import AdapterOptions
from .paths import LocalPath, check_writable, expand_home
from .ports import (
    PORTS,
    BlobStore,
    Completer,
    DatasetStore,
    HubClient,
    MetricsStore,
    TrainingClient,
)
from .resources import Resource, resource
from .spelling import did_you_mean
from .streams import Stream
from .texts import Keyword, Name, Template
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
)
from .version import __version__
from .workflows import WorkflowConfig, run

__all__ = [
    # the kitchen
    "Kitchen",
    "WorkflowConfig",
    "run",
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
    "Template",
    # for adapters
    "PING_TIMEOUT",
    "Call",
    "LocalPath",
    "Resource",
    "causes",
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
    "SessionClosed",
    "SessionFailed",
    "__version__",
]
