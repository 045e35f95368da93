"""Ask language models, several side by side, wherever they run.

>>> from multimodel import Engine, Message, ModelId, race
>>> with Engine() as engine:
...     lanes = {name: engine.ask(ModelId.parse(name), [Message("user", "hi")]) for name in ("echo:a", "echo:b")}
...     ends = {name: snapshot.text for name, snapshot in race(lanes) if snapshot.done}
>>> sorted(ends.items())
[('echo:a', 'hi'), ('echo:b', 'hi')]
"""

from .compare import race
from .engine import Engine
from .errors import (
    AuthenticationFailure,
    BackendError,
    BadRequest,
    BrokenFile,
    ConfigError,
    ConnectionFailure,
    ContextLengthExceeded,
    DownloadFailed,
    GatedModel,
    InvalidModelId,
    InvalidParameter,
    InvalidSetting,
    LoadError,
    MissingDependency,
    MissingKey,
    ModelNotFound,
    MultimodelError,
    NotEnoughMemory,
    ProtocolFailure,
    QuotaExceeded,
    RateLimited,
    Retryable,
    ServerFailure,
    TimedOut,
    Unexpected,
    WorkerCrashed,
)
from .settings import Settings
from .types import (
    Capabilities,
    Chunk,
    LoadOptions,
    Message,
    ModelId,
    ModelSpec,
    SamplingParams,
    Snapshot,
    Stage,
    Timing,
    Usage,
)

__all__ = [
    "AuthenticationFailure",
    "BackendError",
    "BadRequest",
    "BrokenFile",
    "Capabilities",
    "Chunk",
    "ConfigError",
    "ConnectionFailure",
    "ContextLengthExceeded",
    "DownloadFailed",
    "Engine",
    "GatedModel",
    "InvalidModelId",
    "InvalidParameter",
    "InvalidSetting",
    "LoadError",
    "LoadOptions",
    "Message",
    "MissingDependency",
    "MissingKey",
    "ModelId",
    "ModelNotFound",
    "ModelSpec",
    "MultimodelError",
    "NotEnoughMemory",
    "ProtocolFailure",
    "QuotaExceeded",
    "RateLimited",
    "Retryable",
    "SamplingParams",
    "ServerFailure",
    "Settings",
    "Snapshot",
    "Stage",
    "Timing",
    "TimedOut",
    "Unexpected",
    "Usage",
    "WorkerCrashed",
    "race",
]
