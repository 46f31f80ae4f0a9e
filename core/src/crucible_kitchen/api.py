"""The public API: what `crucible_kitchen` names, which imports it when it is first used."""

from .chat import end_of_turn
from .dispatch import Call
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
    explain_os_errors,
)
from .hookspecs import helper, hookimpl
from .kitchen import Kitchen
from .losses import LOSS_FUNCTIONS, custom_loss, loss_config, validate_datums
from .options import AdapterOptions, FromEnv, Keyword, Name, Template
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
from .streams import Stream
from .telemetry import Event, Observer
from .types import (
    AdamParams,
    Completion,
    CompletionChunk,
    Datum,
    EncodedTextChunk,
    ForwardBackwardResult,
    Future,
    ImageChunk,
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
    "FromEnv",
    "Keyword",
    "Name",
    "Template",
    # for adapters
    "Call",
    "LocalPath",
    "Resource",
    "check_writable",
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
    "Completion",
    "CompletionChunk",
    "Datum",
    "EncodedTextChunk",
    "Event",
    "ForwardBackwardResult",
    "Future",
    "ImageChunk",
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
