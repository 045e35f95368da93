"""The Explorer's list of results: values to HTML. Pure; every text of the Hub is escaped here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from html import escape
from typing import TYPE_CHECKING

from .format import size

if TYPE_CHECKING:
    from multimodel.errors import MultimodelError
    from multimodel.explorer import Result
    from multimodel.hub import Listing
    from multimodel.ratings import Rating
    from multimodel.verdict import Fit

WORDS = {
    "fits": "Fits",
    "tight": "Tight",
    "cache": "Fits with a smaller cache",
    "shorter": "Fits with a shorter context",
    "no": "Too large",
    "unknown": "Not known",
}
GATES = {"auto": "Its licence must be accepted on the Hub", "manual": "Its authors decide who may download it"}


def rows_html(results: Iterable[Result], today: date) -> str:
    """Rows to append to the list."""
    return "".join(row_html(result, today) for result in results)


def row_html(result: Result, today: date) -> str:
    """One repository: its name and verdict, and below them its figures."""
    row = result.listing
    owner, _, name = row.name.partition("/")
    return (
        f'<li><button type="button" class="mx-row" data-open="{escape(row.name)}">'
        f'<span class="mx-row-top"><span class="mx-name"><i>{escape(owner)}/</i>{escape(name)}</span>'
        f"{badge(result.fit)}</span>"
        f'<span class="mx-row-figures">{figures(row, today)}{rating_html(result.rating)}</span></button></li>'
    )


def badge(fit: Fit) -> str:
    """The verdict: a word, and the figures behind it."""
    about = "Its shape is taken from a similar model" if fit.assumed else "By formula, from what the Hub lists"
    detail = "" if fit.level == "unknown" else fit_detail(fit)
    return (
        f'<span class="mx-fit mx-{fit.level}" title="{escape(f"{fit_title(fit)} {about}.")}">'
        f"<b>{WORDS[fit.level]}</b>{f'<span>{escape(detail)}</span>' if detail else ''}</span>"
    )


def fit_detail(fit: Fit) -> str:
    """What is recommended, for how long a context, in few words.

    >>> from multimodel.verdict import Fit
    >>> fit_detail(Fit("fits", "Q4_K_M", 4096, 5_890_000_000, 15_000_000_000))
    'Q4_K_M at 4k, 5.9 GB'
    """
    about = "~" if fit.assumed or fit.computed else ""
    return f"{fit.quant} at {tokens(fit.context_length)}, {about}{size(fit.needed)}".lstrip()


def fit_title(fit: Fit) -> str:
    """The same as a sentence."""
    if fit.level == "unknown":
        return "Its size or architecture is not known."
    which = f"{fit.quant} takes" if fit.quant else "It takes"
    cache = " with a KV cache in q8_0" if fit.level == "cache" else ""
    return (
        f"{which} {size(fit.needed)} of {size(fit.available)} usable, "
        f"at {fit.context_length:,} tokens of context{cache}."
    )


def figures(row: Listing, today: date) -> str:
    """The facts of a repository side by side; downloads and likes as a sign and a number."""
    spans = []
    for text, why in facts(row, today):
        number, _, sign = text.partition(" ")
        if sign in ("downloads", "likes"):
            spans.append(f'<span class="mx-i-{sign}" title="{escape(why)}" aria-label="{escape(text)}">{number}</span>')
        else:
            spans.append(f'<span title="{escape(why)}">{escape(text)}</span>')
    return "".join(spans)


def facts(row: Listing, today: date) -> list[tuple[str, str]]:
    """(figure, what it is) of a repository, in the order they are read; unknown ones are left out."""
    known: list[tuple[str, str]] = []
    if row.parameters:
        known.append((parameters(row.parameters), f"{row.parameters:,} parameters"))
    if row.quants:
        known.append(("GGUF", f"Quantisations: {', '.join(quant.label for quant in row.quants)}"))
    elif row.library:
        known.append((row.library, "Library"))
    if row.downloads is not None:
        known.append((f"{count(row.downloads)} downloads", f"{row.downloads:,} downloads in the last 30 days"))
    if row.likes is not None:
        known.append((f"{count(row.likes)} likes", f"{row.likes:,} likes"))
    if moment := row.updated or row.created:
        word = "Updated" if row.updated else "Published"
        known.append((ago(moment, today), f"{word} on {moment:%d %B %Y}"))
    if row.gate:
        known.append(("gated", GATES[row.gate]))
    if row.private:
        known.append(("private", "Only with a token that may read it"))
    if row.licence:
        known.append((row.licence, f"Licence: {row.licence}"))
    return known


def rating_html(rating: Rating | None) -> str:
    """The Arena score with its day, or a dash: never a guess."""
    if not rating:
        return '<span class="mx-arena" title="Not rated in the Arena, as far as is known">Arena –</span>'
    reach = f", 95 % interval {rating.low:.0f} to {rating.high:.0f}" if rating.low and rating.high else ""
    votes = f", {rating.votes:,} votes" if rating.votes else ""
    title = f"Arena score of {rating.name} on {rating.day:%d %B %Y}{reach}{votes}"
    return f'<span class="mx-arena" title="{escape(title)}">Arena {rating.score:.0f}</span>'


def error_html(error: MultimodelError, retry: str = "") -> str:
    """What went wrong and what to do; `retry`: the action of a button that tries again."""
    hint = f"<p>{linked(error.hint)}</p>" if error.hint else ""
    button = f'<button type="button" data-do="{retry}">Try again</button>' if retry else ""
    return f'<div class="mm-error mx-error" role="alert"><strong>{escape(str(error))}</strong>{hint}{button}</div>'


def linked(text: str) -> str:
    """A text with its addresses as links.

    >>> linked("See https://hub/o/r, then <go>.")
    'See <a href="https://hub/o/r" target="_blank" rel="noopener noreferrer">https://hub/o/r</a>, then &lt;go&gt;.'
    """
    words = []
    for word in text.split(" "):
        plain = word.rstrip(".,;:")
        end = escape(word[len(plain) :])
        if plain.startswith(("https://", "http://")):
            address = escape(plain)
            link = f'<a href="{address}" target="_blank" rel="noopener noreferrer">{address}</a>'
            words.append(link + end)
        else:
            words.append(escape(word))
    return " ".join(words)


def parameters(number: int) -> str:
    """A count of parameters.

    >>> parameters(134_515_008), parameters(8_030_261_248), parameters(671_026_419_200)
    ('135M', '8.0B', '671B')
    """
    if number < 995_000_000:
        return f"{number / 1e6:.0f}M"
    billions = number / 1e9
    return f"{billions:.1f}B" if billions < 99.95 else f"{billions:.0f}B"


def tokens(number: int) -> str:
    """A length of context.

    >>> tokens(512), tokens(4096), tokens(5632), tokens(131_072)
    ('512', '4k', '5.5k', '128k')
    """
    return f"{number / 1024:.3g}k" if number >= 1024 else str(number)


def count(number: int) -> str:
    """A count, short.

    >>> count(950), count(12_345), count(3_400_000)
    ('950', '12k', '3.4M')
    """
    if number < 1_000:
        return str(number)
    if number < 1_000_000:
        return f"{number / 1_000:.0f}k" if number >= 10_000 else f"{number / 1_000:.1f}k"
    return f"{number / 1_000_000:.1f}M"


def ago(day: date, today: date) -> str:
    """How long ago a day is.

    >>> ago(date(2026, 11, 20), date(2026, 11, 22)), ago(date(2025, 1, 1), date(2026, 11, 22))
    ('2 days ago', '22 months ago')
    """
    days = max(0, (today - day).days)
    for unit, length, most in (("day", 1, 14), ("week", 7, 60), ("month", 30.44, 730), ("year", 365.25, 10**6)):
        if days <= most:
            number = int(days / length)
            return "today" if days == 0 else f"{number} {unit}{'' if number == 1 else 's'} ago"
    return ""
