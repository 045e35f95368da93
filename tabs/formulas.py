"""Formulas in LaTeX as MathML, which browsers draw themselves: no script, no font, nothing from outside.

`$$..$$` and `\\[..\\]` stand by themselves, `\\(..\\)` and `$..$` in a line. A dollar sign is often money: one
begins a formula only where no space follows, and ends it only after no space and before no letter or digit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from importlib import import_module
from importlib.util import find_spec
from xml.etree import ElementTree

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

LONGEST = 4_000  # characters of a formula; no longer one is drawn
SPACE = "http://www.w3.org/1998/Math/MathML"
FENCES = {"$$": "$$", "\\[": "\\]"}
INLINE = {"\\(": "\\)", **FENCES}
DOLLARS = re.compile(r"(?<![\w$])\$(?![\s$])((?:\\.|[^$\\\n])*?[^\s\\$])\$(?![\w$])")
TAGS = set(
    re.findall(
        r"\w+",
        "math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mmultiscripts"
        " mprescripts none mtable mtr mtd mstyle mpadded mphantom menclose merror semantics",
    )
)
ATTRIBUTES = set(
    re.findall(
        r"\w+",
        "display displaystyle scriptlevel mathvariant stretchy fence separator symmetric minsize maxsize lspace rspace"
        " largeop movablelimits accent accentunder linethickness width height depth voffset columnalign rowalign"
        " columnspacing rowspacing columnlines rowlines frame notation form",
    )
)
"""What is kept of what the converter makes: nothing of it can run, load or lead anywhere."""


def formula(source: str, *, display: bool) -> str:
    """The HTML of a formula; its source where it cannot be drawn."""
    drawn = _drawn(source.strip(), display)
    if not drawn:
        mark = "$$" if display else "$"
        drawn = f'<code class="mm-tex">{escape(f"{mark}{source}{mark}")}</code>'
    return f'<div class="mm-formula">{drawn}</div>\n' if display else drawn


@lru_cache(maxsize=4096)
def _drawn(source: str, display: bool) -> str:
    depth = len(re.findall(r"(?<!\\)\{", source)) - len(re.findall(r"(?<!\\)\}", source))
    if not source or depth or len(source) > LONGEST or not find_spec("latex2mathml"):
        return ""  # of braces that do not fit together the converter would drop what it does not understand
    try:
        made = import_module("latex2mathml.converter").convert(source, display="block" if display else "inline")
        return ElementTree.tostring(_clean(ElementTree.fromstring(made)), "unicode", short_empty_elements=False)
    except Exception:  # of a parser that raises whatever a wrong formula leads to
        return ""


def _clean(element: ElementTree.Element) -> ElementTree.Element:
    """A copy with only what is in TAGS and ATTRIBUTES, and of the rest the texts. Raises RecursionError."""
    name = element.tag.removeprefix(f"{{{SPACE}}}")
    kept = {key: value for key, value in element.attrib.items() if key in ATTRIBUTES}
    copy = ElementTree.Element(name if name in TAGS else "mrow", kept)
    copy.text, copy.tail = element.text, element.tail
    copy.extend(_clean(child) for child in element)
    return copy


def add(parser: MarkdownIt) -> None:
    """Let a parser of Markdown know formulas."""
    parser.block.ruler.before("fence", "formula", _block, {"alt": ["paragraph", "blockquote", "list"]})
    parser.inline.ruler.before("escape", "formula", _inline)
    parser.add_render_rule("formula_block", _render_block)
    parser.add_render_rule("formula_inline", _render_inline)


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula that begins a line, and ends one."""
    if state.is_code_block(start):
        return False
    first = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    closing = FENCES.get(first[:2])
    if not closing:
        return False
    lines = [first[2:]]
    while not lines[-1].rstrip().endswith(closing):
        at = start + len(lines)
        if at >= end or state.sCount[at] < state.blkIndent or len(lines) > 200 or closing in lines[-1]:
            return False
        lines.append(state.src[state.bMarks[at] + state.tShift[at] : state.eMarks[at]])
    if silent:
        return True
    state.line = start + len(lines)
    token = state.push("formula_block", "", 0)
    token.content = "\n".join(lines).rstrip()[: -len(closing)]
    token.map, token.block = [start, state.line], True
    return True


def _inline(state: StateInline, silent: bool) -> bool:
    if state.src[state.pos] not in "$\\":
        return False
    content, end = _enclosed(state.src, state.pos)
    if not content.strip():
        return False
    if not silent:
        state.push("formula_inline", "", 0).content = content
    state.pos = end
    return True


def _enclosed(text: str, at: int) -> tuple[str, int]:
    """The formula that begins at a place of a text, and where what ends it is over; empty where none does."""
    if closing := INLINE.get(text[at : at + 2]):
        end = text.find(closing, at + 2, at + LONGEST)
        return ("", at) if end < 0 else (text[at + 2 : end], end + 2)
    found = DOLLARS.match(text, at)
    return (found[1], found.end()) if found and len(found[1]) <= LONGEST else ("", at)


def _render_block(self: object, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
    return formula(tokens[idx].content, display=True)


def _render_inline(self: object, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
    return formula(tokens[idx].content, display=False)
