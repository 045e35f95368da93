"""Imports point down, never in a circle, and what is heavy is imported only by the files that own it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from .support import ROOT

FLOORS = [  # a module imports only from the floors above its line; a folder stands for all it holds
    ["multimodel.errors"],
    ["multimodel.types"],
    [
        "multimodel.settings",
        "multimodel.hardware",
        "multimodel.compute",
        "multimodel.quants",
        "multimodel.versions",
        "multimodel.web",
    ],
    [
        "multimodel.attachment",
        "multimodel.conversation",
        "multimodel.divergence",
        "multimodel.fairlane",
        "multimodel.prices",
        "multimodel.retry",
        "multimodel.pump",
        "multimodel.folder",
        "multimodel.jobs",
        "multimodel.ratings",
        "multimodel.schema",
        "multimodel.spoken",
        "multimodel.tools",
        "multimodel.messages",
        "multimodel.topics",
        "multimodel.votes",
        "multimodel.waiting",
    ],
    ["multimodel.hub", "multimodel.leaderboard"],
    ["multimodel.transfer"],
    ["multimodel.download"],
    ["multimodel.locate"],
    ["multimodel.downloads", "multimodel.shipped", "multimodel.stored"],
    ["multimodel.memory"],
    ["multimodel.machines", "multimodel.provenance", "multimodel.verdict"],
    ["multimodel.explorer", "multimodel.sheet"],
    ["multimodel.workers"],
    ["multimodel.attach", "multimodel.pool", "multimodel.modifiers"],
    ["multimodel.backends", "multimodel.registry"],
    ["multimodel.chat", "multimodel.compare", "multimodel.pricelist", "multimodel.runs"],
    ["multimodel.finetune", "multimodel.store"],
    [
        "multimodel.attach_child",
        "multimodel.engine",
        "multimodel.exchange",
        "multimodel.habits",
        "multimodel.measuring",
    ],
    [
        "multimodel.batch",
        "multimodel.blind",
        "multimodel.board",
        "multimodel.boards",
        "multimodel.catalog",
        "multimodel.judge",
        "multimodel.links",
    ],
    ["multimodel"],
    ["tabs.formulas", "tabs.scripted"],
    ["tabs.format", "tabs.markdown"],
    ["tabs.announce"],
    ["tabs.leaderboard_page", "tabs.voting"],
    ["tabs.parts", "tabs.explorer_list", "tabs.fairlane_page"],
    [
        "tabs.export",
        "tabs.view",
        "tabs.controls",
        "tabs.explorer_page",
        "tabs.explorer_panels",
        "tabs.page",
        "tabs.presets",
        "tabs.prompts",
        "tabs.shortcuts",
        "tabs.toolbar",
        "tabs.waiting",
    ],
    ["tabs"],
    ["app"],
]
TRAINING = [  # what runs in the processes that train and predict
    f"multimodel.finetune.{name}"
    for name in (
        "adapt",
        "classifier",
        "forward",
        "onnx_child",
        "packed",
        "predicting",
        "prepare",
        "record",
        "reporter",
        "split",
        "tracking",
        "train",
        "trainer",
        "tuning",
    )
]
OWNERS = {
    "sqlite3": ["multimodel.store.*"],
    "gradio": [
        "app",
        "tabs.batch",
        "tabs.attach",
        "tabs.chat",
        "tabs.controls",
        "tabs.conversations",
        "tabs.cost",
        "tabs.explorer",
        "tabs.fairlane",
        "tabs.files",
        "tabs.finetune",
        "tabs.judge",
        "tabs.leaderboard",
        "tabs.page",
        "tabs.meter",
        "tabs.predict",
        "tabs.presets",
        "tabs.prompts",
        "tabs.scripted",
        "tabs.shortcuts",
        "tabs.system",
        "tabs.toolbar",
        "tabs.waiting",
    ],
    "torch": ["multimodel.hardware", "multimodel.workers.torch*", *TRAINING],
    "transformers": ["multimodel.workers.torch*", *TRAINING],
    "safetensors": ["multimodel.workers.torch*", *TRAINING],
    "peft": ["multimodel.finetune.tuning"],
    "onnx": ["multimodel.finetune.onnx_child"],
    "onnxruntime": ["multimodel.finetune.onnx_child", "multimodel.finetune.onnx_session"],
    "rich": ["multimodel.*__main__", "multimodel.finetune.console"],
    "trackio": [],  # through the Trainer's own callbacks
    "wandb": ["multimodel.finetune.tracking"],
    "sklearn": ["multimodel.finetune.metrics", "multimodel.finetune.baseline"],
    "llama_cpp": ["multimodel.memory.engine_child", "multimodel.workers.llama*"],
    "jinja2": ["multimodel.workers.prompt"],
    "openai": ["multimodel.backends.openai"],
    "huggingface_hub": [
        "multimodel.backends.hf_inference",
        "multimodel.download",
        "multimodel.stored",
        "multimodel.transfer",
        "multimodel.hub.*",
    ],
    "datasets": ["multimodel.finetune.sources", "multimodel.finetune.scores"],
    "pyarrow": ["multimodel.finetune.formats"],
    "openpyxl": ["multimodel.finetune.formats"],
    "charset_normalizer": ["multimodel.finetune.tables"],
    "pypdf": ["multimodel.attach_child"],
    "PIL": ["multimodel.attach_child"],
    "evaluate": ["multimodel.finetune.scores"],
    "fastapi": [],
}


def modules() -> dict[str, Path]:
    """Every module of the app, by name."""
    files = [*ROOT.glob("multimodel/**/*.py"), *ROOT.glob("tabs/**/*.py"), ROOT / "app.py"]
    return {_name(path): path for path in sorted(files)}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(name: str) -> Iterator[str]:
    """The modules that a module imports, inside functions too."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*above, *filter(None, [node.module])])
            inner = [f"{stem}.{alias.name}" for alias in node.names]
            yield from (module if module in MODULES else stem for module in inner)


def floor(name: str) -> int | None:
    """The floor of a module of ours; None for others'."""
    homes = [(len(home), i) for i, row in enumerate(FLOORS) for home in row if f"{name}.".startswith(f"{home}.")]
    return max(homes)[1] if homes else None


MODULES = modules()


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    mine = floor(name)
    for other in imported(name):
        theirs = floor(other)
        same_folder = other.rpartition(".")[0] in (name, name.rpartition(".")[0])
        assert theirs is None or theirs < mine or (theirs == mine and same_folder), f"{name} imports {other}"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("multimodel.")])
def test_every_module_has_a_floor_of_its_own(name: str) -> None:
    assert floor(name) != floor("multimodel"), f"give {name} a place in FLOORS"


def test_no_circles() -> None:
    graph = {name: [other for other in imported(name) if other in MODULES and other != name] for name in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize("name", MODULES)
def test_heavy_packages_stay_with_their_owners(name: str) -> None:
    for other in imported(name):
        owners = OWNERS.get(other.partition(".")[0])
        assert owners is None or any(fnmatch(name, owner) for owner in owners), f"{name} imports {other}"


def test_the_check_sees_what_it_should() -> None:
    assert floor("torch") is None
    assert floor("multimodel.backends.echo") == floor("multimodel.backends") != floor("multimodel")
    assert "multimodel.registry" in imported("multimodel.engine")  # from . import registry
    assert "multimodel.types" in imported("multimodel.backends.echo")  # from ..types import
    assert "gradio" in imported("app")
