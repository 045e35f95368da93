"""The whole way of a transformers model: found, loaded in a child process, asked, stopped, ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from multimodel.backends import transformers
from multimodel.backends.local import LocalBackend
from multimodel.errors import BrokenFile, ModelNotFound
from multimodel.pool import Pool
from multimodel.settings import ModelSettings, Settings
from multimodel.types import Chunk, Message, ModelId, ModelSpec, SamplingParams, collect

from ..support import needs

pytestmark = needs("torch", "transformers")

ASK = [Message("user", "Tell me of the sea.")]


def connected(name: str, assets: Path) -> LocalBackend:
    settings = Settings(models=ModelSettings(assets_dir=assets))
    return transformers.connect(ModelSpec(ModelId("transformers", name)), settings, Pool())


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalBackend, list[Chunk]]]:
    """The tiny model in the place of the built-in one, and its first answer, which loads it."""
    assets = tmp_path_factory.mktemp("assets")
    (assets / "guide").mkdir()
    (assets / "guide" / "hf").symlink_to(tiny_folder)
    made = connected("guide", assets)
    yield made, list(made.stream(ASK, SamplingParams(max_tokens=12)))
    made.close()


@pytest.fixture
def backend(loaded: tuple[LocalBackend, list[Chunk]]) -> LocalBackend:
    return loaded[0]


def test_the_first_answer_loads_the_model_and_says_so_the_second_begins_at_once(
    loaded: tuple[LocalBackend, list[Chunk]],
) -> None:
    backend, chunks = loaded
    stages = list(dict.fromkeys(chunk.stage.name for chunk in chunks if chunk.stage))
    text, last = collect(chunks)
    assert stages == ["starting", "loading", "reading"]
    assert text and last.finish_reason == "length" and last.usage and last.usage.output_tokens == 12
    again = list(backend.stream(ASK, SamplingParams(max_tokens=12)))
    assert collect(again)[0] == text and collect(again)[1].usage != last.usage  # the prompt was not read again
    assert {chunk.stage.name for chunk in again if chunk.stage} == {"reading"}


def test_closing_an_answer_frees_its_place_and_leaves_the_model(backend: LocalBackend) -> None:
    stream = backend.stream(ASK, SamplingParams())
    next(chunk for chunk in stream if chunk.text)
    stream.close()
    text, last = collect(backend.stream(ASK, SamplingParams(max_tokens=5)))
    assert text and last.finish_reason == "length"


def test_it_takes_every_sampling_parameter(backend: LocalBackend) -> None:
    no_template_knows, this_one_does_not = {"tool_choice"}, {"tools"}
    every = frozenset(SamplingParams.__dataclass_fields__)
    assert backend.capabilities.params == every - no_template_knows - this_one_does_not
    everything = SamplingParams(
        max_tokens=8, temperature=0.9, top_p=0.9, top_k=20, min_p=0.01, repetition_penalty=1.1, seed=3, stop=("zzz",)
    )
    first, second = (collect(backend.stream(ASK, everything))[0] for _ in range(2))
    assert first == second


def test_the_size_of_a_prompt_is_known_once_it_is_loaded(backend: LocalBackend) -> None:
    _, last = collect(backend.stream(ASK, SamplingParams(max_tokens=1)))
    size = backend.measure(ASK)
    assert size and last.usage and size.tokens == last.usage.input_tokens and size.context_length == 512


def test_what_cannot_be_loaded_is_an_error_with_a_hint(tmp_path: Path) -> None:
    for name, kind in (("./nowhere", ModelNotFound), (str(tmp_path), ModelNotFound)):
        with pytest.raises(kind) as caught:
            collect(connected(name, tmp_path).stream(ASK, SamplingParams()))
        assert caught.value.hint
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(BrokenFile, match="pickle"):
        collect(connected(str(tmp_path), tmp_path).stream(ASK, SamplingParams()))
