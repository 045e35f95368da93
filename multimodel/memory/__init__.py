"""What a model takes of a machine's memory, before it is loaded or even downloaded."""

from .plan import Help, MemoryPlan, Provenance, Request, Term, Training, Verdict
from .target import Target, target_of

__all__ = ["Help", "MemoryPlan", "Provenance", "Request", "Target", "Term", "Training", "Verdict", "target_of"]
