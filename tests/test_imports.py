"""Nothing heavy is loaded before it is used, and everything imported is in the requirements."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions
from importlib.util import find_spec

import pytest

from .support import ROOT
from .test_floors import MODULES, imported

HEAVY = ("torch", "transformers", "gradio", "openai", "llama_cpp", "fastapi", "huggingface_hub", "datasets")
WIDGETS = {"tabs.files", *(name for name in MODULES if "gradio" in imported(name))}
PURE = [name for name in MODULES if name.startswith("tabs") and WIDGETS.isdisjoint({name, *imported(name)})]


def loaded_by(statement: str) -> set[str]:
    """The heavy packages that a new interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import multimodel") == set()


def test_an_echo_loads_nothing_heavy() -> None:
    ask = "list(multimodel.Engine().ask(multimodel.ModelId.parse('echo:a'), [multimodel.Message('user', 'hi')]))"
    assert loaded_by(f"import multimodel; {ask}") == set()


def test_tabs_without_widgets_load_no_gradio() -> None:
    assert "tabs.format" in PURE
    assert loaded_by(f"import {', '.join(PURE)}").isdisjoint({"gradio", "fastapi", "torch", "transformers"})


def test_the_page_loads_no_model_library() -> None:
    assert loaded_by("import app").isdisjoint({"torch", "transformers", "openai", "llama_cpp", "datasets"})


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name: str) -> None:
    absent = [other for other in imported(name) if other in ("llama_cpp", "torch") and find_spec(other) is None]
    if absent:
        pytest.skip(f"needs {absent[0]}")
    import_module(name)


BESIDE = [
    path
    for pattern in ("bench/*.py", "guide/*.py", "encoder/*.py", "tests/**/test_*.py")
    for path in ROOT.glob(pattern)
]


@pytest.mark.parametrize("name", sorted(".".join(p.relative_to(ROOT).with_suffix("").parts) for p in BESIDE))
def test_what_stands_beside_can_be_imported(name: str) -> None:
    """pytest leaves out a file of tests, without a word, whose import of ours fails."""
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if find_spec(str(error.name).partition(".")[0]):
            raise
        pytest.skip(f"needs {error.name}")


def required(file: str) -> set[str]:
    """The packages a requirements file names, normalised."""
    lines = (ROOT / file).read_text("utf-8").splitlines()
    names = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines if not line.startswith(("#", "-")))
    return {re.sub(r"[-_.]+", "-", found.group()).lower() for found in names if found}


def extras() -> set[str]:
    """The packages of all extras, normalised."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    return {re.split(r"[<>=]", line)[0].lower() for lines in found.values() for line in lines}


def foreign() -> Iterator[tuple[str, str]]:
    """(our module, top-level package of others that it imports)."""
    for name in MODULES:
        for other in imported(name):
            top = other.partition(".")[0]
            if top not in sys.stdlib_module_names and top not in ("multimodel", "tabs", "app", "guide"):
                yield name, top


def test_whatever_is_imported_is_required() -> None:
    listed, homes = required("requirements.txt") | extras(), packages_distributions()
    for name, top in foreign():
        names = {re.sub(r"[-_.]+", "-", home).lower() for home in homes.get(top, [top])}
        assert names & listed, f"{name} imports {top}: add it to requirements.txt"


def test_the_extras_are_tested() -> None:
    assert extras() <= required("requirements-dev.txt")


def test_every_requirement_has_both_bounds() -> None:
    for file in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / file).read_text("utf-8").splitlines():
            if line and not line.startswith(("#", "-")):
                assert re.search(r"==|>=.*<", line), f"{file}: {line} has no tested range"


def test_the_gguf_runtime_can_be_left_out_with_one_line() -> None:
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert sum("llama-cpp-python" in line for line in lines) == 1
    assert not any(line.startswith("-") for line in lines)
