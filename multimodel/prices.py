"""What answers cost: prices of a person, of a kept library and of the Hub's router, and what follows for an answer.

Pure but for the library's tables, which lie in its package: nothing is asked over a network, and its updater, which a
program has to start, is never started. All amounts are US dollars; prices are for a million tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from typing import Any

from .settings import Rates
from .types import Cost, Message, Snapshot, Usage

RELEASE = re.compile(r"-(\d+|\d{4}-\d\d-\d\d|latest|preview|exp|experimental|beta)$")
"""The end of a name that says which release of a model it is."""

LETTERS = 4  # of a text that are about one token, where nobody has counted
MILLION = 1_000_000

Offers = Mapping[str, Mapping[str, Rates]]
"""Prices at the Hub's router, by model and provider."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """How a service counts."""

    of: Callable[[Usage], float]
    source: str
    about: str = ""  # why its price may be another
    context: int | None = None  # tokens of prompt and answer that its model takes; None: not known


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A service whose price is not known, and why."""

    why: str


Found = Tariff | Unpriced


@dataclass(frozen=True, slots=True)
class Spent:
    """The cost of several answers."""

    amount: float = 0.0
    estimated: bool = False
    paid: int = 0  # answers whose cost is in it
    unknown: int = 0  # answers whose cost is not known

    def __bool__(self) -> bool:
        """Whether anybody is paid, as far as is known."""
        return bool(self.paid or self.unknown)

    def __add__(self, cost: Cost | None) -> Spent:
        if cost is None:
            return self
        if cost.amount is None:
            return replace(self, unknown=self.unknown + 1)
        return Spent(self.amount + cost.amount, self.estimated or cost.estimated, self.paid + 1, self.unknown)


def total(costs: Iterable[Cost | None]) -> Spent:
    """Their sum.

    >>> total([Cost(0.5), None, Cost(0.25, about="price of its family"), Cost(None)])
    Spent(amount=0.75, estimated=True, paid=2, unknown=1)
    """
    spent = Spent()
    for cost in costs:
        spent += cost
    return spent


# whose price


def own(rates: Rates) -> Tariff:
    """A price that a person has set.

    >>> own((2.0, 8.0, 0.5)).of(Usage(1_000_000, 500_000, reused_tokens=400_000))
    5.4
    """
    return _flat(rates, "your own price in PRICES")


def kept(name: str, *, url: str = "", provider: str = "", when: datetime | None = None) -> Found:
    """The price of the library for a model of a service, known by its address or the library's name for it.

    Where it does not know the model, that of its family: the name without the day or kind of its release. A size, or
    a word such as mini or pro, is another price, and no guess.
    """
    when = when or datetime.now(UTC)
    where = {"provider_id": provider} if provider else {"provider_api_url": url}
    tried, about = name.lower(), ""
    while True:
        try:
            return _library(tried, where, when, about)
        except LookupError:
            family = RELEASE.sub("", tried)
            if family == tried:
                return Unpriced(f"No price is known for {name}. Set one in PRICES.")
            tried, about = family, f"priced as {family}, the nearest known model"


def routed(name: str, provider: str, offers: Offers | None, when: datetime | None = None) -> Found:
    """The price of `OWNER/REPO` or `OWNER/REPO@PROVIDER` at the Hub's router. `provider`: who answered, where known.

    `offers`: what the router lists; None: it has not said yet, and the library's older copy counts.
    """
    when = when or datetime.now(UTC)
    repository, _, asked = name.partition("@")
    who = provider or asked
    listed = (offers or {}).get(repository, {})
    if who in listed:
        return _flat(listed[who], f"{who}'s price in the list of the Hub's router, {_day(when)}")
    if who:
        return kept(repository, provider=f"huggingface_{who}", when=when)
    if not listed:
        return Unpriced("The Hub's router did not say who answers, nor its price.")
    dearest, cheapest = max(listed.values(), key=sum), min(listed.values(), key=sum)
    source = f"the list of the Hub's router, {_day(when)}"
    if dearest == cheapest:
        return _flat(dearest, source)
    about = f"the router did not say who answers; this is the dearest of {len(listed)} providers"
    return replace(_flat(dearest, source), about=about)


def offers_from(rows: Iterable[Mapping[str, Any]]) -> Offers:
    """The prices in what the Hub's router lists; what has none is left out.

    >>> offers_from([{"id": "a/b", "providers": [{"provider": "p", "pricing": {"input": 1, "output": 3}}, {}]}])
    {'a/b': {'p': (1.0, 3.0)}}
    """
    found: dict[str, dict[str, Rates]] = {}
    for row in rows:
        providers = row.get("providers")
        for provider in providers if isinstance(providers, list) else ():
            if isinstance(provider, dict) and (rates := _rates(provider.get("pricing"))):
                found.setdefault(str(row.get("id")), {})[str(provider.get("provider"))] = rates
    return found


def _rates(pricing: object) -> Rates | None:
    values = [pricing.get(key) for key in ("input", "output")] if isinstance(pricing, dict) else []
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v < MILLION]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def _flat(rates: Rates, source: str) -> Tariff:
    cached = rates[2] if len(rates) == 3 else rates[0]

    def of(usage: Usage) -> float:
        fresh = max(0, usage.input_tokens - usage.reused_tokens)
        parts = fresh * rates[0] + usage.reused_tokens * cached + usage.output_tokens * rates[1]
        return parts / MILLION

    words = f"${rates[0]:g} in, ${rates[1]:g} out" + (f", ${cached:g} cached" if len(rates) == 3 else "")
    return Tariff(of, f"{words}, a million tokens; {source}")


def _library(name: str, where: dict[str, str], when: datetime, about: str) -> Tariff:
    """Raises LookupError where the library does not know it."""
    genai = import_module("genai_prices")  # its tables take a while: read once there is something to pay

    def calculated(usage: Usage) -> Any:
        counts = genai.Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=min(usage.reused_tokens, usage.input_tokens),
            output_tokens=usage.output_tokens,
        )
        return genai.calc_price(counts, name, genai_request_timestamp=when, **where)

    nothing = calculated(Usage())
    price = str(nothing.model_price)
    rates = [part.replace("/", " ").replace(" MTok", "") for part in price.split(", ") if "MTok" in part]
    if not rates:  # paid by the picture or the minute, perhaps
        raise LookupError(name)
    source = f"{', '.join(rates)}, a million tokens; genai-prices {version('genai-prices')}, for {_day(when)}"
    return Tariff(lambda usage: float(calculated(usage).total_price), source, about, nothing.model.context_window)


def _day(when: datetime) -> str:
    return when.date().isoformat()


# what follows


def cost(found: Found | None, messages: Iterable[Message], answer: Snapshot, before: str = "") -> Cost | None:
    """What an answer that has ended costs; None where there is nothing to pay.

    A service that did not count is counted for, by letters. `before`: what of the text was there already.
    """
    if answer.cost or not found or (answer.error and not answer.text and not answer.usage):
        return answer.cost
    if isinstance(found, Unpriced):
        return Cost(None, found.why)
    usage, guess = answer.usage, ""
    if usage is None or usage.estimated:
        said = len(answer.text) + len(answer.reasoning) - len(before)
        usage = Usage(tokens(m.content for m in messages), max(_tokens(said), usage.output_tokens if usage else 0))
        guess = "the service did not count the tokens: counted by letters, hidden thoughts not at all"
    return Cost(found.of(usage), "; ".join(filter(None, (found.about, guess))), found.source)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a prompt will cost that is not sent yet. Tokens are counted by letters: both are only about right."""

    prompt: Cost
    most: Cost | None = None  # with the longest answer that is allowed; None where there is no limit


def expected(found: Found, messages: Iterable[Message], max_tokens: int | None) -> Expected:
    """What these messages will cost."""
    if isinstance(found, Unpriced):
        return Expected(Cost(None, found.why))
    count = tokens(message.content for message in messages)
    about = "; ".join(filter(None, (found.about, "tokens counted by letters")))
    prompt, whole = (Cost(found.of(Usage(count, answer)), about, found.source) for answer in (0, max_tokens or 0))
    return Expected(prompt, whole if max_tokens else None)


def tokens(texts: Iterable[str]) -> int:
    """About how many tokens texts are, where nobody has counted.

    >>> tokens(["Hello", "there, world"])
    5
    """
    return sum(_tokens(len(text)) for text in texts)


def _tokens(letters: int) -> int:
    return -(-max(0, letters) // LETTERS)


def spent_text(spent: Spent) -> str:
    """The cost of several answers; empty where nobody is paid.

    >>> spent_text(Spent(0.5, True, paid=2, unknown=1)), spent_text(Spent(unknown=1)), spent_text(Spent())
    ('~$0.50, 1 unknown', '–', '')
    """
    if not spent.paid:
        return "–" if spent.unknown else ""
    return f"{'~' * spent.estimated}{money(spent.amount)}{f', {spent.unknown} unknown' if spent.unknown else ''}"


def money(amount: float) -> str:
    """US dollars to two figures, never rounded to nothing.

    >>> money(0), money(0.000123), money(0.0123), money(0.5), money(1234.5), money(3e-9)
    ('free', '$0.00012', '$0.012', '$0.50', '$1,234.50', 'under $0.0000001')
    """
    if amount == 0:
        return "free"
    if amount < 1e-7:
        return "under $0.0000001"
    zeros = re.match(r"0\.(0*)", f"{amount:.12f}") if amount < 1 else None
    return f"${amount:,.{max(2, len(zeros.group(1)) + 2 if zeros else 2)}f}"
