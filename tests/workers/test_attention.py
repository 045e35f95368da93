"""Flash attention where it is quicker: tried once for each model, kept, and planned with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multimodel import registry
from multimodel.engine import Engine
from multimodel.memory.attention import FILE, Attention
from multimodel.memory.plan import MemoryPlan, Request, Term
from multimodel.pool import Pool
from multimodel.settings import ModelSettings, Settings
from multimodel.types import LoadOptions, Message, ModelId, ModelSpec, SamplingParams, collect

from ..support import needs

pytestmark = needs("llama_cpp")


@pytest.fixture
def model(tiny_gguf_file: Path) -> Iterator[Any]:
    from multimodel.workers.llama_native import Model

    loaded = Model(tiny_gguf_file, 0, lambda done: None)
    yield loaded
    loaded.close()


def seconds(plain: float, flash: float) -> Callable[[Sequence[Any], int], list[float]]:
    return lambda contexts, depth: [plain, flash if depth else 0.0]


@pytest.mark.parametrize(("plain", "flash", "quicker"), [(1.0, 0.9, True), (1.0, 0.99, False), (1.0, 2.0, False)])
def test_the_quicker_way_is_taken_where_it_is_worth_it(
    model: Any, monkeypatch: pytest.MonkeyPatch, plain: float, flash: float, quicker: bool
) -> None:
    from multimodel.workers import attention

    monkeypatch.setattr(attention, "_quickest", seconds(0.01 * plain, 0.01 * flash))
    assert attention.quicker_with_flash(model, 4096) is quicker


def test_both_ways_are_really_tried(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodel.workers import attention

    ways, depths = set[bool](), list[int]()
    real = attention._decode

    def seen(context: Any, position: int, count: int) -> None:
        ways.add(context.flash_attention)
        depths.append(position)
        real(context, position, count)

    monkeypatch.setattr(attention, "_decode", seen)
    assert attention.quicker_with_flash(model, 300) in (True, False)
    assert ways == {True, False}
    assert {0, 64, 256} == set(depths)


def test_a_slow_model_is_judged_by_what_it_reads_soon(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodel.workers import attention

    tried: list[int] = []

    def slow(contexts: Sequence[Any], depth: int) -> list[float]:
        tried.append(depth)
        return [0.04, 0.01]

    monkeypatch.setattr(attention, "_quickest", slow)
    assert attention.quicker_with_flash(model, 4096)
    assert tried == [0, 64]
    monkeypatch.setattr(attention, "_quickest", lambda contexts, depth: [1.0, 0.5])
    assert not attention.quicker_with_flash(model, 4096), "nothing was tried"


def test_what_was_found_is_kept(tmp_path: Path) -> None:
    plan = MemoryPlan(model="gguf:a", request=Request(), terms=(Term("weights", 7, "exact", ""),))
    Attention(tmp_path).learn(plan, True)
    again = Attention(tmp_path)
    assert [again.flash("gguf:a", 7), again.flash("gguf:a", 8), again.flash("gguf:b", 7)] == [True, None, None]
    (tmp_path / FILE).write_text('["broken"]')
    assert Attention(tmp_path).flash("gguf:a", 7) is None


def test_a_model_is_tried_once_and_planned_as_it_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(models=ModelSettings(cache_dir=tmp_path))
    spec = ModelSpec(ModelId("gguf", "guide"))
    params = SamplingParams(max_tokens=1)
    with Engine(settings) as engine:
        *_, first = engine.ask(spec, [Message("user", "hello")], params)
        backend: Any = engine.backend(spec)
        found, (resident,) = backend.facts.flash_attention, engine.pool.residents()
        plan = engine.pool.plan(_guide(), spec)
        assert plan.request.flash_attention is found is engine.pool.flash_attention(plan)
        assert resident.predicted == pytest.approx(plan.total - plan.size("correction"), abs=1 << 20)
        engine.estimator.tried(plan, not found)
        engine.unload(spec)
        *_, second = engine.ask(spec, [Message("user", "hello")], params)
        again: Any = engine.backend(spec)
        assert again.facts.flash_attention is not found, "what is known is not tried again"
        chosen = ModelSpec(spec.id, LoadOptions(flash_attention=found))
        *_, third = engine.ask(chosen, [Message("user", "hello")], params)
        other: Any = engine.backend(chosen)
        assert other.facts.flash_attention is found
        assert engine.pool.flash_attention(plan) is not found, "a choice is no finding"
    assert [answer.error for answer in (first, second, third)] == [None] * 3


def _guide() -> Path:
    from ..support import GUIDE_GGUF

    return GUIDE_GGUF


@pytest.mark.parametrize("first", [True, False])
def test_a_model_that_comes_back_has_the_attention_it_had(first: bool) -> None:
    spec = ModelSpec(ModelId("gguf", "guide"))
    plan = MemoryPlan(model=str(spec.id), request=Request(), terms=())
    backend: Any = registry.connect(spec, Settings(), Pool())
    collect(backend.stream([Message("user", "hello")], SamplingParams(max_tokens=1)))
    backend._place.loaded(plan, replace(backend.facts, flash_attention=first))
    backend.close()
    collect(backend.stream([Message("user", "hello")], SamplingParams(max_tokens=1)))
    assert backend.facts.flash_attention is first
    backend.close()
