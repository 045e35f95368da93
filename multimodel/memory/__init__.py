"""What a model takes of a machine's memory, before it is loaded or even downloaded."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .plan import Help, MemoryPlan, Provenance, Request, Term, Training, Verdict
from .target import Target, target_of

if TYPE_CHECKING:
    from .estimator import Estimator as Estimator

__all__ = ["Help", "MemoryPlan", "Provenance", "Request", "Target", "Term", "Training", "Verdict", "target_of"]


def __getattr__(name: str) -> Any:
    """What reads headers comes with the Hub's library, so it is imported only where it is used."""
    if name == "Estimator":
        return getattr(import_module(".estimator", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
