"""What models really took here, beside what was predicted: a small file in the model cache, read by later plans.

A model that was loaded before is corrected by the median of what it took beyond its plans, another one by the median
of all of its kind. The correction is a term of its own, so that the figures above it stay what they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from threading import Lock

from .files import read_json, write_json
from .plan import MemoryPlan, Term

FILE = "memory-calibration.json"
KEPT = 200  # loads, the newest
ENOUGH = 3  # loads of other models, before they say anything about a new one
MOST = 0.2  # of a plan: a correction is never more, for what differs by more was not the same thing


@dataclass(frozen=True, slots=True)
class Load:
    """One model that was loaded. Bytes."""

    model: str
    kind: str  # of device, and whether a GGUF file or not: what has the same libraries
    predicted: int
    measured: int

    @property
    def beyond(self) -> int:
        """What it took beyond the plan."""
        return self.measured - self.predicted


class Calibration:
    """The loads so far, in a file of the model cache."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._lock = Lock()
        self._loads: tuple[Load, ...] | None = None

    @property
    def loads(self) -> tuple[Load, ...]:
        """All that is known, the oldest first."""
        with self._lock:
            if self._loads is None:
                self._loads = _read(self._path)
            return self._loads

    def add(self, plan: MemoryPlan, measured: int) -> None:
        """One more load: what was resident once the model had answered. A full disk forgets it."""
        predicted = plan.total - plan.size("correction")
        load = Load(_bare(plan.model), _kind(plan), predicted, measured)
        known = self.loads
        with self._lock:
            self._loads = (*known, load)[-KEPT:]
            write_json(self._path, [asdict(load) for load in self._loads])

    def applied(self, plan: MemoryPlan) -> MemoryPlan:
        """The plan with a correction, where there is experience; training is not corrected."""
        if plan.request.training:
            return plan
        plan = replace(plan, terms=tuple(term for term in plan.terms if term.name != "correction"))
        alike = [load for load in self.loads if load.kind == _kind(plan)]
        same = [load for load in alike if _bare(load.model) == _bare(plan.model)]
        if not same and len({load.model for load in alike}) < ENOUGH:
            return plan
        beyond = int(median(load.beyond for load in same or alike))
        most = int(MOST * plan.total)
        count = len(same or alike)
        loads = f"{count} load{'s' * (count > 1)}{' of this model' * bool(same)} here"
        term = Term(
            "correction", max(-most, min(most, beyond)), "assumed", f"median of {loads}, beyond what was predicted"
        )
        again = plan.replan
        corrected = replace(plan, terms=(*plan.terms, term))
        return replace(corrected, replan=lambda request: self.applied(again(request))) if again else corrected


def _bare(model: str) -> str:
    """A model's name without its runtime, which the kind of a load holds: before a download it has none.

    >>> _bare("gguf:o/r:Q8_0"), _bare("o/r:Q8_0")
    ('o/r:Q8_0', 'o/r:Q8_0')
    """
    return model.removeprefix("gguf:").removeprefix("transformers:")


def _kind(plan: MemoryPlan) -> str:
    here = "here" if plan.request.target.here else plan.request.target.name
    return f"{plan.request.target.kind}, {plan.engine}, {here}"


def _read(path: Path) -> tuple[Load, ...]:
    try:
        rows = read_json(path) or ()
        return tuple(Load(str(r["model"]), str(r["kind"]), int(r["predicted"]), int(r["measured"])) for r in rows)
    except (ValueError, TypeError, KeyError):
        return ()
