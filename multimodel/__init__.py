"""Ask language models, several side by side, wherever they run.

>>> from multimodel import Engine, Message, ModelId, race
>>> with Engine() as engine:
...     lanes = {name: engine.ask(ModelId.parse(name), [Message("user", "hi")]) for name in ("echo:a", "echo:b")}
...     ends = {name: snapshot.text for name, snapshot in race(lanes) if snapshot.done}
>>> sorted(ends.items())
[('echo:a', 'hi'), ('echo:b', 'hi')]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import finetune
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
    DataError,
    DiskFull,
    Diverged,
    DownloadFailed,
    GatedModel,
    InvalidModelId,
    InvalidName,
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
    TrainingError,
    Unexpected,
    WorkerCrashed,
)
from .finetune.types import Prediction, TrainConfig, TrainUpdate
from .memory import MemoryPlan, Training
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
    TokenLogprob,
    Usage,
)

if TYPE_CHECKING:
    from .sheet import estimate as estimate

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
    "DataError",
    "DiskFull",
    "Diverged",
    "DownloadFailed",
    "Engine",
    "GatedModel",
    "InvalidModelId",
    "InvalidName",
    "InvalidParameter",
    "InvalidSetting",
    "LoadError",
    "LoadOptions",
    "MemoryPlan",
    "Message",
    "MissingDependency",
    "MissingKey",
    "ModelId",
    "ModelNotFound",
    "ModelSpec",
    "MultimodelError",
    "NotEnoughMemory",
    "Prediction",
    "Predictor",
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
    "TokenLogprob",
    "TimedOut",
    "TrainConfig",
    "TrainUpdate",
    "Training",
    "TrainingError",
    "Unexpected",
    "Usage",
    "WorkerCrashed",
    "finetune",
    "estimate",
    "race",
]


LATER = {"Predictor": ".finetune.predict", "estimate": ".sheet"}  # where they are; importing them takes a moment


def __getattr__(name: str) -> Any:
    """What takes a moment to import comes when it is first asked for."""
    if name in LATER:
        return getattr(import_module(LATER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
