"""Markdown of untrusted text as safe HTML, fast enough to be made again at every update of a stream.

Raw HTML is escaped, links open only http, https and mailto, and images become links: a picture in an answer would
tell its server who is reading, and could carry the conversation away in its address.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from html import escape

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from . import formulas

HIGHLIGHT_LIMIT = 20_000
"""Characters of code beyond which colours are left out: lexing a very long block would hold up the other columns."""


REMEMBERED = 64
"""Texts whose HTML a stream has left for `render`: of answers that have just ended, seen by several pages at once."""
_rendered: OrderedDict[str, str] = OrderedDict()

HTML = re.compile(
    r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]*`)"  # code stays
    r"|<!--.*?(?:-->|\Z)|<(?:script|style|svg)\b.*?(?:</(?:script|style|svg)\s*>|\Z)|</?[a-zA-Z][^<>]*>",
    re.DOTALL | re.IGNORECASE,
)


def render(text: str) -> str:
    """The HTML of a finished text.

    >>> render("**hi** <script>")
    '<p><strong>hi</strong> &lt;script&gt;</p>\\n'
    >>> render("![x](http://evil/?d=secret)")
    '<p><a href="http://evil/?d=secret" rel="noopener noreferrer nofollow" target="_blank">x</a></p>\\n'
    """
    if not (html := _rendered.get(text)):
        html = str(_parser().render(text))
    return html


def without_html(text: str) -> str:
    """A text of others without its HTML, which `render` would show as text; code keeps it.

    >>> without_html("<center><b>Hi</b></center> `<b>` <!-- no -->")
    'Hi `<b>` '
    """
    return HTML.sub(lambda found: found[1] or "", text)


class Stream:
    """The HTML of a text that grows: finished blocks are rendered once, only the last one again and again.

    `blocks`: what no later text will change, in pieces as it was finished; it is a new list when a text begins anew.
    `tail`: what may still change.
    """

    def __init__(self) -> None:
        self.blocks: list[str] = []
        self.tail = ""
        self._source = ""
        self._settled = 0  # characters of the source that `blocks` show

    def update(self, text: str) -> None:
        """Take the text as it stands."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if not text.startswith(self._source):
            self._settled, self.blocks = 0, []
        self._source = text
        parser, tail = _parser(), text[self._settled :]
        tokens = parser.parse(tail)
        last, length = _finished(tokens, tail)
        if last:
            self.blocks.append(str(parser.renderer.render(tokens[:last], parser.options, {})))
        self._settled += length
        self.tail = str(parser.renderer.render(tokens[last:], parser.options, {}))

    def finish(self, text: str) -> None:
        """Take the text that will not change any more; to `render` it costs nothing for a while."""
        self.update(text)
        _rendered[text] = self.html
        if len(_rendered) > REMEMBERED:
            _rendered.popitem(last=False)

    @property
    def html(self) -> str:
        """The HTML of the text as it stands."""
        return "".join(self.blocks) + self.tail


def _finished(tokens: list[Token], text: str) -> tuple[int, int]:
    """How many of the tokens, and of the characters, no later text can change: all before the last outermost block
    that begins after a blank line. Its first line must be whole, or it might still join what is before it."""
    lines = text.split("\n")
    for index in range(len(tokens) - 1, 0, -1):
        first = tokens[index].map[0] if tokens[index].map and tokens[index].level == 0 else 0  # type: ignore[index]
        if 0 < first < len(lines) - 1 and not lines[first - 1].strip(" \t"):
            return index, sum(len(line) + 1 for line in lines[:first])
    return 0, 0


def _code(text: str, language: str) -> str:
    """Highlighted code in the classes of style.css."""
    lexed = escape(text)
    if language and len(text) <= HIGHLIGHT_LIMIT:
        try:
            lexed = highlight(text, get_lexer_by_name(language), HtmlFormatter(nowrap=True, classprefix="hl-"))
        except ClassNotFound:
            pass
    name = escape(language[:20]) or "text"
    head = f'<div class="mm-code-head"><span>{name}</span><button type="button" data-copy="code">Copy</button></div>'
    return f'<div class="mm-code">{head}<pre><code>{lexed}</code></pre></div>\n'


class _Renderer(RendererHTML):
    def fence(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        words = tokens[idx].info.split()
        return _code(tokens[idx].content, words[0] if words else "")

    def code_block(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return _code(tokens[idx].content, "")

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        tokens[idx].attrSet("rel", "noopener noreferrer nofollow")
        tokens[idx].attrSet("target", "_blank")
        return self.renderToken(tokens, idx, options, env)

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        source = escape(str(tokens[idx].attrGet("src") or ""))
        name = escape(tokens[idx].content or "image")
        return f'<a href="{source}" rel="noopener noreferrer nofollow" target="_blank">{name}</a>'

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return '<div class="mm-table"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return "</table></div>"


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    options = {"html": False, "linkify": False, "breaks": True}
    parser = MarkdownIt("commonmark", options, renderer_cls=_Renderer).enable(["table", "strikethrough"])
    formulas.add(parser)
    parser.disable("reference")  # a definition far below would change what was shown long before
    parser.validateLink = lambda url: url.strip().lower().startswith(("http://", "https://", "mailto:", "#"))  # type: ignore[method-assign]
    return parser
