"""Verdicts of a list of results: the level, the quantisation, and how they move with the machine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from multimodel.hardware import Device, Hardware
from multimodel.hub import Listing
from multimodel.hub.listing import listing
from multimodel.machines import GIB, KNOWN, target
from multimodel.memory import Target, target_of
from multimodel.quants import quants
from multimodel.settings import ModelSettings, Settings
from multimodel.shipped import catalogue
from multimodel.verdict import RUNS, basis_of, fit, request_for, sketches

from .support import DATA, needs_data

HARDWARE = Hardware((Device("cpu", "here", 16 * GIB, 12 * GIB, "float32", "why"),))
SETTINGS = Settings(models=ModelSettings(context_length=4096))
FILES = ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16")
GGUF = quants({f"m-{label}.gguf": None for label in FILES})
EIGHT = Listing(name="someone/eight-GGUF", base="Qwen/Qwen3-8B", quants=GGUF)


def on(machine: str) -> Target:
    return target(machine, HARDWARE)


def usable(gib: float, kind: str = "cpu") -> Target:
    return replace(target_of(("PC", int(gib * GIB))), usable=int(gib * GIB), kind=kind)


@pytest.mark.parametrize(
    ("gib", "level", "quant"),
    [
        (64, "fits", "Q8_0"),  # never full precision where less does
        (13, "fits", "Q8_0"),
        (10, "fits", "Q5_K_M"),
        (7.5, "fits", "Q4_K_M"),
        (6, "fits", "Q3_K_M"),
        (4.25, "tight", "Q2_K"),
        (3.8, "cache", "Q2_K"),
        (3.6, "shorter", "Q2_K"),
        (3, "no", "Q2_K"),
    ],
)
def test_with_less_memory_the_quantisation_shrinks_first_then_cache_then_context(
    gib: float, level: str, quant: str
) -> None:
    found = fit(EIGHT, usable(gib), SETTINGS)
    assert (found.level, found.quant) == (level, quant)
    assert found.runs == (level in RUNS)
    assert (found.needed <= found.available) == found.runs
    assert found.context_length == 4096 if level != "shorter" else 1024 <= found.context_length < 4096


@pytest.mark.parametrize("machine", ["PC, 16 GB of memory", "GeForce RTX 3060", "Apple Silicon, 64 GB", "NVIDIA H100"])
def test_what_is_said_to_fit_does_by_its_own_plan(machine: str) -> None:
    place = on(machine)
    for known in catalogue(SETTINGS).models:
        found = fit(known.listing, place, SETTINGS)
        if not found.quant:
            continue
        basis = basis_of(known.listing, SETTINGS)
        assert basis
        model = sketches("x", known.listing.quants, basis)[found.quant]
        kv_type = "q8_0" if found.level == "cache" else "f16"
        plan = model.plan(request_for(place, context_length=found.context_length, kv_type=kv_type))
        assert plan.total == found.needed
        assert (plan.level(place) != "no") == found.runs


def test_a_larger_machine_never_runs_less() -> None:
    places = [usable(gib) for gib in (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)]
    for known in catalogue(SETTINGS).models:
        runs = [fit(known.listing, place, SETTINGS).runs for place in places]
        assert runs == sorted(runs), known.listing.name


def test_a_known_model_is_told_from_one_that_is_only_like_it() -> None:
    unknown = Listing(name="someone/Mystery-8B-GGUF", quants=GGUF)
    assert not fit(EIGHT, usable(16), SETTINGS).assumed
    assert fit(unknown, usable(16), SETTINGS).assumed
    assert fit(unknown, usable(16), SETTINGS).runs


def test_the_family_of_an_unknown_model_counts() -> None:
    """Phi-3 keeps four times the cache of its like."""
    plain = Listing(name="o/x", parameters=3_800_000_000, quants=GGUF, architecture="llama")
    phi = replace(plain, architecture="phi3")
    one, other = (fit(row, usable(64), SETTINGS) for row in (plain, phi))
    assert other.needed > one.needed + 10**9


@pytest.mark.parametrize(
    "row",
    [
        Listing(name="o/picture", library="diffusers", task="text-to-image"),
        Listing(name="o/nothing"),
        Listing(name="o/name-tells-nothing-GGUF", quants=GGUF),
        Listing(name="o/m-7B-GGUF", quants=quants({"strange.gguf": None})),
        Listing(name="o/m-7B-GGUF", quants=quants({"m-Q4_0-00001-of-00002.gguf": None})),
    ],
)
def test_where_too_little_is_known_nothing_is_claimed(row: Listing) -> None:
    found = fit(row, usable(64), SETTINGS)
    assert (found.level, found.needed, found.runs) == ("unknown", 0, False)


def test_safetensors_are_loaded_as_the_machine_prefers() -> None:
    row = Listing(
        name="Qwen/Qwen3-8B", library="transformers", stored=(("BF16", 8_190_735_360),), parameters=8_190_735_360
    )
    assert fit(row, on("NVIDIA H100"), SETTINGS).level == "fits"
    assert 16e9 < fit(row, on("NVIDIA H100"), SETTINGS).needed < 20e9
    assert fit(row, on("PC, 16 GB of memory"), SETTINGS).level == "no"


def test_an_encoder_has_no_cache() -> None:
    row = replace(catalogue(SETTINGS).models[-1].listing)
    assert row.task == "fill-mask"
    found = fit(row, usable(8), SETTINGS)
    assert (found.level, found.context_length) == ("fits", 512)


def test_the_context_is_never_longer_than_the_model_was_trained_for() -> None:
    row = Listing(name="TinyLlama/TinyLlama-1.1B-Chat-v1.0", quants=GGUF)
    assert fit(row, usable(16), SETTINGS).context_length == 2048


def test_a_graphics_card_holds_a_tied_embedding_twice() -> None:
    row = Listing(name="google/gemma-2-2b-it", quants=quants({"m-Q8_0.gguf": None}))
    here, there = fit(row, usable(24), SETTINGS), fit(row, usable(24, "cuda"), SETTINGS)
    assert there.needed - here.needed > 400_000_000


@needs_data("hub_fixtures")
def test_a_real_row_of_the_hub() -> None:
    row = listing(json.loads((DATA / "hub_fixtures" / "ggml-org--gemma-3-12b-it-GGUF.json").read_text()))
    assert row
    found: Any = fit(row, on("GeForce RTX 3060"), SETTINGS)
    assert (found.level, found.quant, found.assumed) == ("fits", "Q4_K_M", False)
    assert fit(row, on("PC, 4 GB of memory"), SETTINGS).level == "no"


def test_every_known_machine_gives_a_verdict() -> None:
    for name in KNOWN:
        assert fit(EIGHT, on(name), SETTINGS).level != "unknown"
