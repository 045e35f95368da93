"""The place to ask for a memory plan: headers read once, llama.cpp kept ready to be asked, what loads have taught."""

from __future__ import annotations

import atexit
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import Lock, Thread

from ..errors import InvalidParameter
from ..hardware import Device, gpu_possible, llama_on_gpu, probe, without_gpu
from ..settings import Settings
from ..settings import settings as own_settings
from ..types import ModelId, ModelSpec
from .attention import Attention
from .calibration import Calibration
from .context import request_of, settings_of, slots
from .engine import SECONDS, Account, Accountant
from .gguf_plan import GgufModel
from .plan import Admits, MemoryPlan, Request, admitted
from .subject import Subject, on_disk, subject
from .target import Target, target_of
from .torch_plan import TorchModel

KEPT = 64  # models whose headers are remembered
ACCOUNTS = 4096  # answers of llama.cpp that are
KINDS = ("auto", "cpu", "cuda", "mps")

AnyDevice = Device | Target | tuple[str, int]


class Estimator:
    """Memory plans of models, each read once. Safe to ask from several threads."""

    def __init__(
        self, settings: Settings, *, device: Callable[[], Device] | None = None, accountant: Accountant | None = None
    ) -> None:
        """`device`: the one that "auto" means; the best of this machine where it is not given."""
        self._settings = settings
        self._device = device or this_device
        self._accountant = accountant or Accountant()
        self._calibration = Calibration(settings.models.cache_dir)
        self._attention = Attention(settings.models.cache_dir)
        self._lock = Lock()  # the two memories below
        self._subjects: OrderedDict[tuple[str, str | None], Subject] = OrderedDict()
        self._accounts: OrderedDict[tuple[str, object], Account] = OrderedDict()

    def read(self, model: str | Path | ModelId, revision: str | None = None) -> Subject:
        """The headers of a model, from this machine or the Hub. Raises LoadError, ConfigError."""
        key = (str(model), revision)
        with self._lock:
            if key in self._subjects:
                self._subjects.move_to_end(key)
                return self._subjects[key]
        found = subject(model, self._settings, revision)
        if isinstance(found, GgufModel):
            Thread(target=self._accountant.warm, daemon=True).start()
        with self._lock:
            self._subjects[key] = found
            while len(self._subjects) > KEPT:
                self._subjects.popitem(last=False)
        return found

    def plan(
        self,
        model: str | Path | ModelId | Subject,
        request: Request | None = None,
        *,
        exact: bool = True,
        seconds: float = SECONDS,
    ) -> MemoryPlan:
        """The plan of a model. Raises LoadError, ConfigError.

        With `exact` llama.cpp is asked, for at most so many seconds; a plan by formula is there at once, and says so.
        """
        found = model if isinstance(model, Subject) else self.read(model)
        request = request or Request(target=target_of(self._device()))
        if isinstance(found, TorchModel):
            return self._calibration.applied(found.plan(request, self._corrected(admitted)))
        if request.training:
            return self._calibration.applied(found.plan(request))
        account = self._account(found, request, seconds) if exact else self._known(found, request)
        return self._calibration.applied(found.plan(request, account, gpu=_on_gpu(request)))

    def planned(self, path: Path, spec: ModelSpec, device: Device, admits: Admits = admitted) -> MemoryPlan:
        """The plan by which a model that lies here is loaded on a device. Raises LoadError.

        Where the options do not say for how many conversations and in which format, the plan's `request` does: the
        best format whose plan `admits` lets in.
        """
        found = on_disk(path, str(spec.id))
        if isinstance(found, GgufModel) and (spec.load.gpu_layers == 0 or not llama_on_gpu()):
            device = device if device.kind == "cpu" else without_gpu().best
        options = spec.load
        if isinstance(found, GgufModel) and options.flash_attention is None:
            options = replace(options, flash_attention=self._attention.flash(found.name, found.header.weights))
        request = request_of(options, target_of(device), found.shape.context_limit)
        if isinstance(found, GgufModel) and options.sequences is None:
            alone = found.plan(request)
            many = slots(device.free - alone.weights, alone.kv_cache + alone.recurrent)
            request = replace(request, sequences=many)
        if isinstance(found, TorchModel):
            request = replace(request, dtype=found.dtype(request, self._corrected(admits)))
        return self.plan(found, request)

    def target(self, device: str | AnyDevice) -> Target:
        """What "auto", "cpu", a device or the (name, bytes) of another machine stands for. Raises InvalidParameter."""
        if not isinstance(device, str):
            return target_of(device)
        if device not in KINDS:
            hint = f"Give {', '.join(KINDS)}, or the name and the bytes of another machine."
            raise InvalidParameter(f"{device!r} is no device.", hint=hint)
        best = self._device()
        return target_of(best if device in ("auto", best.kind) else without_gpu().best)

    def loaded(self, plan: MemoryPlan, measured: int) -> None:
        """Keep what a model took that was loaded by this plan, in bytes: later plans are corrected by it."""
        self._calibration.add(plan, measured)

    def flash_attention(self, plan: MemoryPlan) -> bool | None:
        """Whether a GGUF model is quicker with flash attention, by an earlier load; None where that is not known."""
        return self._attention.flash(plan.model, plan.weights)

    def tried(self, plan: MemoryPlan, flash: bool) -> None:
        """Keep what the load of a GGUF model found."""
        self._attention.learn(plan, flash)

    def close(self) -> None:
        """End llama.cpp's process."""
        self._accountant.close()

    def _corrected(self, admits: Admits) -> Admits:
        """The same test of a plan that has yet to be corrected by earlier loads."""
        return lambda plan: admits(self._calibration.applied(plan))

    def _account(self, found: GgufModel, request: Request, seconds: float) -> Account | None:
        if known := self._known(found, request):
            return known
        answers = self._accountant.account(found.header, [settings_of(request)], gpu=_on_gpu(request), seconds=seconds)
        if answers:
            with self._lock:
                self._accounts[_key(found, request)] = answers[0]
                while len(self._accounts) > ACCOUNTS:
                    self._accounts.popitem(last=False)
        return answers[0] if answers else None

    def _known(self, found: GgufModel, request: Request) -> Account | None:
        with self._lock:
            return self._accounts.get(_key(found, request))


def _key(found: GgufModel, request: Request) -> tuple[str, object]:
    return found.name, (found.header.weights, settings_of(request), _on_gpu(request))


def _on_gpu(request: Request) -> bool:
    """Whether llama.cpp can lay the buffers out on the device itself."""
    return request.target.kind != "cpu" and request.target.here and llama_on_gpu()


@lru_cache(maxsize=1)
def this_device() -> Device:
    """The best device of this machine. Where there can be no GPU that is seen at once; else torch is asked."""
    return (probe() if gpu_possible() else without_gpu()).best


@lru_cache(maxsize=1)
def default_estimator() -> Estimator:
    """The one that `multimodel.estimate` asks; its process ends with this one."""
    found = Estimator(own_settings())
    atexit.register(found.close)
    return found
