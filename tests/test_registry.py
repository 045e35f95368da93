"""A wrong name gets the nearest right one; a missing package is named; a backend is imported on first use only."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import pytest

from multimodel import registry
from multimodel.errors import InvalidModelId, InvalidParameter, MissingDependency
from multimodel.pool import Pool
from multimodel.registry import BACKENDS, connect, missing, source
from multimodel.settings import RESERVED, ApiSettings, Endpoint, Settings
from multimodel.types import LoadOptions, ModelId, ModelSpec

from .support import needs

SETTINGS = Settings(api=ApiSettings(endpoints=(Endpoint(name="ollama", base_url="http://127.0.0.1:1/v1"),)))


@pytest.mark.parametrize(
    ("typed", "meant"), [("gguff", "gguf"), ("transformer", "transformers"), ("opena", "openai"), ("olama", "ollama")]
)
def test_a_typing_error_gets_the_nearest_name(typed: str, meant: str) -> None:
    with pytest.raises(InvalidModelId) as caught:
        source(typed, SETTINGS)
    assert caught.value.hint == f"Did you mean {meant}?"


def test_a_name_like_no_other_gets_the_list_endpoints_included() -> None:
    with pytest.raises(InvalidModelId) as caught:
        source("zzz", SETTINGS)
    assert all(name in caught.value.hint for name in [*BACKENDS, "ollama", "ENDPOINTS"])


def test_an_endpoint_is_served_by_the_openai_backend() -> None:
    assert source("ollama", SETTINGS) is BACKENDS["openai"]


def test_no_endpoint_may_take_the_name_of_a_backend() -> None:
    assert set(BACKENDS) == RESERVED


def test_a_missing_package_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(BACKENDS["gguf"], package="a_package_that_nobody_has")
    monkeypatch.setitem(registry.BACKENDS, "gguf", row)
    with pytest.raises(MissingDependency, match="a_package_that_nobody_has") as caught:
        connect(ModelSpec(ModelId("gguf", "guide"), LoadOptions()), SETTINGS, Pool())
    assert "python -m pip install llama-cpp-python" in caught.value.hint


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("openai:gpt", LoadOptions(dtype="float16")),
        ("echo:any", LoadOptions(context_length=9)),
        ("gguf:guide", LoadOptions(dtype="int8")),
        ("transformers:guide", LoadOptions(kv_type="q8_0")),
        ("transformers:guide", LoadOptions(gpu_layers=1, sequences=2)),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused(model: str, options: LoadOptions) -> None:
    with pytest.raises(InvalidParameter) as caught:
        connect(ModelSpec(ModelId.parse(model), options), SETTINGS, Pool())
    assert all(name in str(caught.value) for name in options.changed())
    assert caught.value.hint


def test_what_backends_honour_are_options() -> None:
    known = set(LoadOptions.__dataclass_fields__)
    assert set().union(*(row.loads for row in BACKENDS.values())) == known


def test_what_needs_nothing_misses_nothing() -> None:
    assert missing(BACKENDS["echo"]) is None


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs(*filter(None, [BACKENDS[name].package]))) for name in BACKENDS]
)
def test_every_row_leads_to_a_backend(name: str) -> None:
    assert callable(import_module(BACKENDS[name].module).connect)


def test_connecting_an_echo() -> None:
    spec = ModelSpec(ModelId("echo", "any"))
    backend = connect(spec, SETTINGS, Pool())
    assert backend.model == spec.id
    backend.close()
