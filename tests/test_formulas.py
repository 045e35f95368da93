"""Formulas: what is one and what is money, what is drawn, and that nothing in one can run or load anything."""

from __future__ import annotations

import re

import pytest

from tabs import formulas
from tabs.formulas import ATTRIBUTES, LONGEST, TAGS
from tabs.markdown import Stream, render

from .support import needs

drawn = needs("latex2mathml")


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $10, or $3-$4.",
        "US$ 5 and A$ 7",
        "echo $HOME/$PATH and $1",
        "`$x$` and ``\\(x\\)``",
        "```\n$$x$$\n\\[y\\]\n```",
        "    $$x$$",
        "a $ b $ c",
        "open $x and \\(y and \\[z",
        "$$\nnever closed\n\nand on",
        "\\$x$",
    ],
)
def test_what_is_no_formula_stays_text(text: str) -> None:
    assert "mm-tex" not in render(text) and "<math" not in render(text)


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("so $x$.", False),
        ("so \\(x\\).", False),
        ("so $$x$$.", False),
        ("$$x$$", True),
        ("\\[x\\]", True),
        ("\\[\nx\n\\]", True),
        ("text\n$$\nx\n$$\nmore", True),
        ("- a\n  \\[\n  x\n  \\]\n- b", True),
        ("> $$x$$", True),
        ("| a |\n|---|\n| $x$ |", False),
    ],
)
def test_what_is_a_formula(text: str, display: bool) -> None:
    html = render(text)
    assert ("mm-formula" in html) == display
    assert html.count("<math") + html.count("mm-tex") == 1


@drawn
def test_a_formula_is_drawn_by_the_browser() -> None:
    html = render("$$\n\\frac{1}{2}\n$$")
    assert "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>" in html
    assert '<math display="block">' in html
    assert "<mo>&lt;</mo>" in render("$a<b$")


@pytest.mark.parametrize("source", ["\\frac{", "\\frac{1", "\\begin{x}", "x" * (LONGEST + 1)])
def test_what_cannot_be_drawn_is_shown_as_it_was_written(source: str) -> None:
    assert "<code" in formulas.formula(source, display=True)
    assert source in formulas.formula(source, display=True)


@pytest.mark.parametrize(
    "source",
    [
        "\\text{<script>alert(1)</script>}",
        "\\text{<img src=x onerror=alert(1)>}",
        "\\href{javascript:alert(1)}{x}",
        "\\style{background:url(http://evil/)}{x}",
        "\\color{red;background:url(http://evil/)}{x}",
        "\\class{mm-error}{x}",
        "\\text{</math><script>alert(1)</script>}",
        "\\unicode{x3c}script>",
        "</code><script>alert(1)</script>",
        '\\hspace{1em" onclick="alert(1)}',
    ],
)
def test_nothing_in_a_formula_runs_or_loads(source: str) -> None:
    html = render(f"${source}$ and\n\n$${source}$$")
    tags = re.findall(r"<(/?)(\w+)([^>]*)>", html)
    assert {name for _, name, _ in tags} <= TAGS | {"p", "div", "code"}
    for _, name, rest in tags:
        names = re.findall(r"([\w:-]+)=", re.sub(r'"[^"]*"', '""', rest))
        assert set(names) <= (ATTRIBUTES if name in TAGS else {"class"}), rest


def test_a_growing_text_ends_as_the_whole_one() -> None:
    text = "First \\(a\\).\n\n\\[\nx^2\n\\]\n\nThen $b$ for $5.\n\n$$y$$\n"
    stream = Stream()
    for end in range(len(text) + 1):
        stream.update(text[:end])
    assert "".join(stream.blocks) + stream.tail == render(text)


def test_many_beginnings_without_an_end_are_soon_read() -> None:
    for text in ("\\( " * 5000, "$a " * 5000, "$$\n" * 5000, "\\[" * 5000):
        assert "<math" not in render(text)
