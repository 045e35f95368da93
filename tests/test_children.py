"""The processes that the app starts leave nothing behind, also those that end by themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from multimodel.engine import Engine
from multimodel.settings import ModelSettings, Settings
from multimodel.types import Message, ModelId, SamplingParams

from .support import eventually, needs

pytestmark = [
    needs("llama_cpp", "gguf", "torch", "transformers"),
    pytest.mark.skipif(sys.platform == "win32", reason="there are no zombies"),
]


def children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def test_after_a_load_and_an_unload_no_child_is_a_zombie(tiny_gguf_file: Path, tmp_path: Path) -> None:
    before = children()
    model = ModelId("gguf", str(tiny_gguf_file))
    with Engine(Settings(models=ModelSettings(cache_dir=tmp_path))) as engine:
        *_, last = engine.ask(model, [Message("user", "hi")], SamplingParams(max_tokens=2))
        assert not last.error
        engine.unload(model)
        (accounts,) = [child for child in children() - before if "engine_child.py" in " ".join(child.cmdline())]
        accounts.terminate()  # as it does itself, after two minutes without a question
        eventually(lambda: not children() - before)
