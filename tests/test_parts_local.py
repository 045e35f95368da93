"""Tools and thoughts of local models, where only the chat template knows what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from multimodel.engine import Engine
from multimodel.types import Message, ModelId, SamplingParams, Snapshot
from multimodel.workers.prompt import NO_TOOLS_NOTE

from .support import CHAT_TEMPLATE, needs, tiny_gguf, tiny_llama

WITH_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}" + CHAT_TEMPLATE
THINKING = CHAT_TEMPLATE.replace("<|bot|>{% endif %}", "<|bot|><think>\n{% endif %}")
TOOLS = SamplingParams(max_tokens=2, temperature=0.0, tools='{"name": "now"}')
HI = [Message("user", "hi")]


@pytest.fixture(params=[pytest.param("gguf", marks=needs("llama_cpp", "gguf")), "transformers"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], ModelId]:
    """Makes a tiny model with this chat template."""

    def make(template: str) -> ModelId:
        folder = tiny_llama(tmp_path / "hf", template=template)
        path = tiny_gguf(folder, tmp_path / "tiny.gguf") if request.param == "gguf" else folder
        return ModelId(request.param, str(path))

    return make


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


def last(engine: Engine, model: ModelId, params: SamplingParams) -> Snapshot:
    with closing(engine.ask(model, HI, params)) as answer:
        *_, end = answer
    assert not end.error and end.usage
    return end


def test_a_template_that_takes_tools_is_given_them(engine: Engine, model: Callable[[str], ModelId]) -> None:
    id = model(WITH_TOOLS)
    without, with_tools = last(engine, id, SamplingParams(max_tokens=2)), last(engine, id, TOOLS)
    assert without.usage and with_tools.usage
    assert with_tools.usage.input_tokens > without.usage.input_tokens + 20
    assert with_tools.notes == ()
    capabilities = engine.capabilities(id)
    assert capabilities and "tools" in capabilities.params and "tool_choice" not in capabilities.params


def test_a_template_that_takes_none_says_so_and_the_setting_is_greyed(
    engine: Engine, model: Callable[[str], ModelId]
) -> None:
    id = model(CHAT_TEMPLATE)
    assert NO_TOOLS_NOTE in last(engine, id, TOOLS).notes
    capabilities = engine.capabilities(id)
    assert capabilities and "tools" not in capabilities.params


def test_thoughts_that_a_template_begins_are_thoughts(engine: Engine, model: Callable[[str], ModelId]) -> None:
    end = last(engine, model(THINKING), SamplingParams(max_tokens=4, temperature=0.0))
    assert end.text == "" and end.reasoning
