"""One model's page in the Explorer: what it offers, what each offer takes of a machine, which to choose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from .errors import DownloadFailed, GatedModel, LoadError
from .hardware import Device
from .hub import Listing, RemoteFile, access, config, model
from .hub import Repository as HubRepository
from .locate import pick_gguf
from .memory import MemoryPlan, Request, Target, Training
from .memory.config_shape import is_encoder
from .memory.estimator import default_estimator
from .memory.torch_plan import TorchModel
from .quants import Quant
from .ratings import Rating, ratings
from .settings import Settings
from .settings import settings as own_settings
from .shipped import Known, catalogue
from .types import KVType, ModelId
from .verdict import Basis, Sketch, basis_from, basis_of, recommended, request_for, sketches, stored

SAFETENSORS = "safetensors"
LONGEST = 1 << 20  # tokens: the end of a slider


@dataclass(frozen=True)
class Offer:
    """One way to have the model: a quantisation, or its safetensors files."""

    label: str  # Q4_K_M, or SAFETENSORS
    id: ModelId
    size: int | None  # bytes to download
    read: bool  # whether the size is the Hub's, not computed
    subject: Sketch | TorchModel

    def plan(self, request: Request) -> MemoryPlan:
        """What it takes, by formula."""
        return self.subject.plan(request)


@dataclass(frozen=True)
class Sheet:
    """A model with all that its page shows."""

    listing: Listing
    offers: tuple[Offer, ...]
    basis: Basis | None
    repository: HubRepository | None  # None: from the shipped catalogue
    refusal: GatedModel | None  # why its files may not be read
    rating: Rating | None
    quantised: str  # a repository with quantisations of it; "" where none is known
    as_of: date | None = None  # the day of the catalogue it is from

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        return self.repository.files if self.repository else ()

    @property
    def context_limit(self) -> int:
        """Tokens the model was trained for."""
        known = self.listing.context_length or (self.basis.llama.context_limit if self.basis else 0)
        return min(known or 4096, LONGEST)

    @property
    def encoder(self) -> bool:
        """Whether it reads text and writes none: a base model of classifiers."""
        return self.basis is not None and is_encoder(self.basis.config) and self.offer(SAFETENSORS) is not None

    def offer(self, label: str) -> Offer | None:
        """The offer of that label."""
        return next((offer for offer in self.offers if offer.label == label), None)

    def best(self, target: Target, settings: Settings) -> Offer | None:
        """The offer to take on a machine: the recommended quantisation, else the first one."""
        request = request_for(target, context_length=min(settings.models.context_length, self.context_limit))
        plans = {offer.label: offer.plan(request) for offer in self.offers if offer.label != SAFETENSORS}
        return self.offer(recommended(plans, target)) or (self.offers[0] if self.offers else None)


def sheet(name: str, settings: Settings) -> Sheet:
    """The page of a repository: by one request, two more where its shape or its gate must be asked for.

    Raises LoadError.
    """
    found = model(name, settings)
    listing = replace(found.listing, quants=found.quants)
    refusal = access(found.repository, settings) if listing.gate else None
    basis = _basis(listing, found.repository, refusal, settings)
    known = catalogue(settings).find(name, listing.base)
    return Sheet(
        listing,
        _offers(listing, basis),
        basis,
        found.repository,
        refusal,
        ratings(settings).of(listing.name, listing.base),
        _quantised(listing, known),
    )


def shipped_sheet(name: str, settings: Settings) -> Sheet | None:
    """The page of a well-known model from the shipped catalogue; None for any other."""
    shelf = catalogue(settings)
    known = shelf.find(name)
    if not known:
        return None
    quantised = name.lower() == known.gguf.lower()  # a repository of its own, without the original weights
    listing = replace(known.listing, name=known.gguf, stored=()) if quantised else replace(known.listing, quants=())
    basis = basis_of(listing, settings)
    rating = ratings(settings).of(known.listing.name)
    return Sheet(listing, _offers(listing, basis), basis, None, None, rating, _quantised(listing, known), shelf.as_of)


def _basis(listing: Listing, repo: HubRepository, refusal: GatedModel | None, settings: Settings) -> Basis | None:
    """The shape of a model: the catalogue's, else that of its configuration, else a similar model's."""
    basis = basis_of(listing, settings)
    if refusal or (basis and basis.known):
        return basis
    try:
        own: dict[str, Any] = config(repo, settings)
    except LoadError:
        return basis
    return basis_from(own, listing) or basis


def _offers(listing: Listing, basis: Basis | None) -> tuple[Offer, ...]:
    if not basis:
        return ()
    sizes = {quant.label: quant for quant in listing.quants}
    made = sketches(listing.name, listing.quants, basis)
    offers = [_quantisation(listing.name, sizes[label], subject) for label, subject in made.items()]
    if weights := stored(replace(listing, quants=())):
        whole = TorchModel(listing.name, basis.config, weights, exact=False)
        size = listing.stored_bytes or whole.weights("bfloat16")
        id = ModelId("transformers", listing.name)
        offers.append(Offer(SAFETENSORS, id, size, listing.stored_bytes is not None, whole))
    return tuple(offers)


def _quantisation(name: str, quant: Quant, subject: Sketch) -> Offer:
    id = ModelId("gguf", f"{name}:{quant.label or quant.files[0]}")
    return Offer(quant.label or quant.files[0], id, quant.size or subject.size, quant.size is not None, subject)


def _quantised(listing: Listing, known: Known | None) -> str:
    return known.gguf if known and not listing.quants and known.listing.name.lower() == listing.name.lower() else ""


def fits_on(sheet: Sheet, request: Request, target: Target) -> dict[str, str]:
    """The level of every offer on a machine."""
    return {offer.label: offer.plan(request).level(target) for offer in sheet.offers}


def estimate(
    model: str | Path | ModelId,
    *,
    context_length: int = 4096,
    sequences: int = 1,
    kv_type: KVType = "f16",
    flash_attention: bool = True,
    batch_tokens: int = 512,
    device: str | Device | Target | tuple[str, int] = "auto",
    training: Training | None = None,
    dtype: str = "auto",
) -> MemoryPlan:
    """What a model takes of memory, before it is loaded or even downloaded. Raises LoadError, ConfigError.

    `model`: an id such as gguf:OWNER/REPO:Q4_K_M, a repository, a GGUF file or a folder. `context_length`: tokens of
    each of `sequences` conversations. `device`: "auto" for the best one here, "cpu", a `hardware.Device`, or the name
    and bytes of another machine. Plans of GGUF models are llama.cpp's own accounting where that can be asked. Where
    the Hub cannot, a model of the shipped catalogue has a plan by formula, and its notes say so.
    """
    estimator = default_estimator()
    request = Request(
        context_length=context_length,
        sequences=sequences,
        kv_type=kv_type,
        flash_attention=flash_attention,
        batch_tokens=batch_tokens,
        target=estimator.target(device),
        dtype=dtype,
        training=training,
    )
    request.check()
    try:
        return estimator.plan(model, request)
    except DownloadFailed as error:
        known = shipped_offer(str(model), own_settings())
        if not known:
            raise
        offer, day = known
        plan = estimator.plan(offer.subject, request, exact=False)
        note = f"By the catalogue that ships with the app, of {day:%d %B %Y}: {error}"
        return replace(plan, notes=(*plan.notes, note))


def shipped_offer(model: str, settings: Settings) -> tuple[Offer, date] | None:
    """What the shipped catalogue knows of an id or a repository, and its day; None where it does not know it."""
    backend, colon, rest = model.partition(":")
    own = not colon or backend not in ("gguf", "transformers")
    name, _, wanted = (model if own else rest).partition(":")
    found = shipped_sheet(name, settings)
    if not found or not found.as_of:
        return None
    offers = {offer.label: offer for offer in found.offers}
    if SAFETENSORS in offers and not wanted and (own or backend == "transformers"):
        return offers[SAFETENSORS], found.as_of
    files = {quant.files[0]: offers[quant.label] for quant in found.listing.quants if quant.label in offers}
    if backend == "transformers" or not files:
        return None
    return files[pick_gguf(files, wanted, name)[0]], found.as_of
