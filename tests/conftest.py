"""Models that many tests share, each made once a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .hub import FakeHub, running
from .page import Chat, visit
from .serving import Server, app, chromium
from .support import tiny_gguf, tiny_llama


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a chat template, as a Transformers folder."""
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "hf")


@pytest.fixture(scope="session")
def tiny_gguf_file(tiny_folder: Path) -> Path:
    """The same weights as a GGUF file."""
    return tiny_gguf(tiny_folder, tiny_folder.parent / "tiny-f32.gguf")


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model without a chat template."""
    return tiny_llama(tmp_path_factory.mktemp("base") / "hf", template=None)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub on loopback, without a repository."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with running() as served:
        yield served
    huggingface_hub.close_session()


@pytest.fixture
def writable_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The same, where the token hf_good may write."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # its protocol is not on loopback
    hub.writers = {"hf_good": "ada"}
    return hub


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; it and the app of a module live as long as the module."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An app with two echoes, one of them slow."""
    with app(tmp_path_factory.mktemp("app"), MULTIMODEL_COLUMNS=["echo:any", "echo:slow"]) as server:
        yield server


@pytest.fixture
def chat(browser: Any, served: Server) -> Iterator[Chat]:
    """A page of a visitor of its own."""
    yield from visit(browser, served)
