"""The house style, where a machine can tell."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from statistics import median, quantiles

import pytest

from .support import ROOT
from .test_floors import MODULES

Function = ast.FunctionDef | ast.AsyncFunctionDef

PRODUCT = list(MODULES.values())
SCRIPTS = [path for folder in ("guide", "encoder", "bench") for path in ROOT.glob(f"{folder}/**/*.py")]
LONGEST = 60
TEXT = {".py", ".md", ".toml", ".txt", ".js", ".css", ".html", ".example", ".tsv", ".json", ".yml", ""}

BANNED = {
    "a promise instead of a feature": r"coming\ssoon|not\simplemented\syet",
    "a note to oneself": r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "a path of one machine": r"(?<![\w.}/])/(work|root)/[a-z]",
    "a test that cannot fail": r"assert\s+True\b",
}


def functions(paths: list[Path]) -> Iterator[tuple[str, Function]]:
    """(where, function) of all functions and methods."""
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, Function):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def length(function: Function) -> int:
    """Lines from `def` to the end."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def tracked() -> list[Path]:
    """The text files of the repository, those not yet added included."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and Path(name).suffix in TEXT and (ROOT / name).is_file()]


def test_no_function_is_long() -> None:
    long = {where: length(f) for where, f in functions(PRODUCT + SCRIPTS) if length(f) > LONGEST}
    assert not long


def test_most_functions_are_short() -> None:
    lengths = [length(f) for _, f in functions(PRODUCT)]
    assert median(lengths) <= 10
    assert quantiles(lengths, n=10)[-1] <= 30


def test_every_return_is_annotated() -> None:
    bare = [where for where, f in functions(PRODUCT) if f.returns is None]
    assert not bare


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@pytest.mark.skipif(which("git") is None or not (ROOT / ".git").exists(), reason="needs a git checkout")
@pytest.mark.parametrize("what", BANNED)
def test_nothing_banned_is_written(what: str) -> None:
    pattern = re.compile(BANNED[what], re.IGNORECASE if "promise" in what else 0)
    me = Path(__file__)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked()
        if path != me
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, what


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a promise instead of a feature", "This tab is Coming soon!"),
        ("a note to oneself", "# TO" + "DO: later"),
        ("a path of one machine", 'open("/root' + '/x")'),
        ("a test that cannot fail", "assert " + "True"),
    ],
)
def test_the_bans_see_what_they_should(what: str, line: str) -> None:
    assert re.search(BANNED[what], line, re.IGNORECASE)
