"""Who is paid for a model, and how much: the prices of the services that are set up here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from threading import Lock, Thread
from time import monotonic

from .backends.service import Service
from .errors import MultimodelError
from .prices import Found, Offers, Unpriced, cost, kept, own, routed
from .settings import Settings
from .types import Cost, Message, ModelId, Snapshot

FRESH = 3600.0  # seconds for which a list of the router counts


class PriceList:
    """The prices of all models. Thread-safe."""

    def __init__(self, settings: Settings, read: Callable[[Settings], Offers] | None = None) -> None:
        """`read`: asks the Hub's router for its prices."""
        self._settings = settings
        self._read = read or _ask_router
        self._lock = Lock()  # between the answers of all visitors
        self._offers: Offers | None = None
        self._asked = -FRESH  # when the router was asked last

    def cost(self, model: ModelId, messages: Sequence[Message], answer: Snapshot, before: str = "") -> Cost | None:
        """What an answer that has ended costs; None where nobody is paid. `before` as in `prices.cost`."""
        return cost(self.of(model, answer.provider), messages, answer, before)

    def of(self, model: ModelId, provider: str = "") -> Found | None:
        """The price of a model; None for one of this machine, unless the person has set a price."""
        settings, backend = self._settings, model.backend
        for name in (str(model), f"{backend}:*"):
            if rates := settings.api.prices.get(name):
                return own(rates)
        if not (url := _address(backend, settings)):
            return None
        if Service(backend, backend, url).on_this_machine:
            return None
        if backend != "hf-inference":
            return kept(model.name, url=url)
        if settings.api.hf_inference_url:
            return Unpriced("An endpoint of one's own is paid by the hour, not by the token.")
        return routed(model.name, provider, self._offers)

    def prepare(self, model: ModelId) -> None:
        """Ask the router for its prices where they are soon needed and not known; returns at once."""
        if model.backend != "hf-inference" or self._settings.api.hf_inference_url or self._settings.models.offline:
            return
        with self._lock:
            if monotonic() - self._asked < FRESH:
                return
            self._asked = monotonic()
        Thread(target=self._refresh, name="prices", daemon=True).start()

    def _refresh(self) -> None:
        try:
            self._offers = self._read(self._settings)
        except MultimodelError:
            with self._lock:
                self._asked = -FRESH  # the next answer asks again


def _address(backend: str, settings: Settings) -> str:
    """Where a backend's models are served; empty for those in the app itself, and for what nobody has set up."""
    if endpoint := settings.endpoint(backend):
        return endpoint.base_url
    known = {"openai": settings.api.openai_base_url, "hf-inference": settings.api.hf_inference_url or "https://hub"}
    return known.get(backend, "")


def _ask_router(settings: Settings) -> Offers:
    offers: Offers = import_module("multimodel.backends.hf_inference").offers(settings)
    return offers
