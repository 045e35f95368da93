"""The README is true: its code runs, its commands exist, its tables are those of the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from multimodel.registry import BACKENDS
from multimodel.settings import ROOT as INSTALLED
from multimodel.settings import Settings
from multimodel.types import RANGES, ModelId, SamplingParams

from .support import ROOT, needs

README = (ROOT / "README.md").read_text("utf-8")
MARKDOWN = {"README.md": README, "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text("utf-8")}


def blocks(language: str) -> list[str]:
    """The code blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """The text under a heading."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_the_python_examples_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.endswith("None") for line in lines), "an answer ended in an error"


def test_there_is_an_example() -> None:
    assert len(blocks("python")) == 1


def test_the_help_is_the_real_one() -> None:
    env = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    command = [sys.executable, "app.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"$ python app.py --help\n{done.stdout}" in blocks("text")


COMMANDS = re.findall(r"python (?:-m ([\w.]+)|([\w./]+\.py))", README)


@pytest.mark.parametrize(("module", "script"), sorted(set(COMMANDS)))
def test_the_commands_exist(module: str, script: str) -> None:
    if script:
        assert (ROOT / script).is_file()
    elif module.partition(".")[0] == "llama_cpp" and find_spec("llama_cpp") is None:
        pytest.skip("needs llama_cpp")
    else:
        found = find_spec(module)
        assert found is not None
        if module.partition(".")[0] in ("guide", "encoder"):
            assert '__name__ == "__main__"' in Path(str(found.origin)).read_text("utf-8"), f"{module} does nothing"


def test_the_two_commands_come_first() -> None:
    first, second, *_ = blocks("sh")
    assert first.strip() == "python -m pip install -r requirements.txt && python app.py"
    assert second.strip() == "python -m pip install -r requirements-dev.txt && python -m pytest -n 2 --dist loadfile"


@pytest.mark.parametrize("file", MARKDOWN)
def test_links_and_pictures_lead_somewhere(file: str) -> None:
    targets = [t for t in re.findall(r"\]\(([^)#\s]+)", MARKDOWN[file]) if "://" not in t]
    assert all((ROOT / target).is_file() for target in targets), targets


def test_the_files_it_names_exist() -> None:
    named = re.findall(r"`((?:\.\.?/)?(?:[\w.-]+/)*[\w.-]+\.(?:py|txt|md|example))`|`((?:\.\./)?[\w./-]+/)`", README)
    own = {"without-gguf.txt", "multimodel/backends/NAME.py", "user_data/"}  # made by a person, or by the app
    for name in {file or folder for file, folder in named} - own:
        assert (ROOT / name).exists() or (ROOT / "multimodel" / name).exists(), name


ENDPOINT_LINES = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("ENDPOINTS=")]


@pytest.mark.parametrize("line", ENDPOINT_LINES)
def test_the_lines_for_servers_are_settings(line: str) -> None:
    Path(".env").write_text(line + "\n")
    assert list(Settings.load().api.endpoints) != []
    json.loads(line.partition("=")[2])


def test_every_kind_of_server_has_its_line() -> None:
    text = section("Keys and servers")
    assert all(name in text for name in ("Ollama", "LM Studio", "llama-server", "vLLM", "Text Generation", "Ray Serve"))


def test_every_backend_has_an_id_in_the_table() -> None:
    ids = re.findall(r"`([^`]+:[^`]+)`", section("Model ids"))
    assert {ModelId.parse(text).backend for text in ids} == {*BACKENDS, "NAME"}


def setting_rows() -> dict[str, str]:
    """Variable to default, as the README's table says; two names of one setting are joined by " or "."""
    rows = re.findall(r"^\| (`.+?`) \| (.*?) ?\|", section("Settings"), re.MULTILINE)
    return {names.replace("`", ""): default.strip().strip("`") for names, default in rows}


def settings_in_code() -> dict[str, str]:
    """The same of the code."""
    groups = [field.annotation for name, field in Settings.model_fields.items() if name != "environment"]
    fields = [field for group in groups for field in group.model_fields.values()]  # type: ignore[union-attr]
    return {" or ".join(_names(field)): _shown(field.default) for field in fields}


def _names(field: FieldInfo) -> list[Any]:
    return list(field.validation_alias.choices)  # type: ignore[union-attr]


def _shown(default: object) -> str:
    if isinstance(default, Path):
        return str(default.relative_to(INSTALLED) if default.is_absolute() else default)
    if isinstance(default, tuple | bool):
        return json.dumps(default)
    return "" if default is None or isinstance(default, SecretStr) else str(default)


def test_the_table_of_settings_is_the_settings() -> None:
    assert setting_rows() == settings_in_code()


def parameter_rows() -> dict[str, tuple[str, set[str]]]:
    """Parameter to range and takers, as the README's table says."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| .* \| (.*?) \|$", section("Sampling parameters"), re.MULTILINE)
    return {name: (span, set(takers.split(", "))) for name, span, takers in rows}


@needs("openai", "huggingface_hub")
def test_the_table_of_parameters_is_the_code() -> None:
    from multimodel.backends import gguf, hf_inference, openai, transformers

    assert gguf.TAKES == transformers.TAKES
    takers = {
        "local": gguf.TAKES,
        "openai": openai.STANDARD,
        "endpoint": openai.STANDARD | openai.EXTRA.keys(),
        "hf-inference": hf_inference.HfInferenceBackend.capabilities.params,
    }
    assert parameter_rows() == {
        field.name: (
            " to ".join(f"{limit:.10g}" for limit in RANGES.get(field.name, ())),
            {who for who, params in takers.items() if field.name in params},
        )
        for field in fields(SamplingParams)
    }


def test_the_example_file_names_only_settings() -> None:
    names = re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
    known = {name for names in settings_in_code() for name in names.split(" or ")}
    assert names and set(names) <= known
