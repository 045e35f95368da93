"""A measurement of models alone as HTML and as Markdown. Pure; every text is escaped here.

Bars of one figure have one scale for all models, and each model the colour of its column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from multimodel.fairlane import FairLane, FairModel, FairUpdate, Sample, Spread, rough, spread
from multimodel.prices import spent_text, total

from .format import backend_name, called, counted, per_second, seconds, short_name

Figure = Callable[[Sample], float | None]
Words = Callable[[float], str]

HEAD = (
    *("model", "TTFT side by side", "TTFT alone", "tok/s side by side", "tok/s alone"),
    *("cold start", "prefix cached side by side", "alone", "cost"),
)
NOTHING = "–"


def ttft(sample: Sample) -> float | None:
    """Seconds."""
    return sample.ttft


def rate(sample: Sample) -> float | None:
    """Tokens per second."""
    return sample.rate


def spread_text(found: Spread | None, words: Words) -> str:
    """A figure that was measured several times.

    >>> spread_text(Spread(0.3, 0.2, 0.5), seconds), spread_text(None, seconds)
    ('300 ms (200 ms to 500 ms)', '–')
    """
    if found is None:
        return NOTHING
    ends = f" ({words(found.low)} to {words(found.high)})" if found.high > found.low else ""
    return words(found.middle) + ends


def ends_text(found: Spread | None, words: Words) -> str:
    """Its ends, in the unit of its middle; empty where they are one.

    >>> ends_text(Spread(0.3, 0.2, 0.5), seconds), ends_text(Spread(9.5, 9.0, 10.25), per_second)
    ('200–500', '9.0–10.2')
    """
    if found is None or found.high <= found.low:
        return ""
    text = words(found.middle)
    scale, digits = (1000, 0) if text.endswith(" ms") else (1, 1 if "." in text else 0)
    return f"{scale * found.low:.{digits}f}–{scale * found.high:.{digits}f}"


def share(samples: Iterable[Sample]) -> str:
    """How much of a prompt a cache held, the median."""
    found = spread(samples, lambda sample: sample.reused)
    return f"{found.middle:.0%}" if found else NOTHING


def cells(model: FairModel) -> tuple[str, ...]:
    """A row of the table under HEAD."""
    return (
        called(model.model),
        *(spread_text(spread(samples, ttft), seconds) for samples in ([model.beside], model.fair)),
        *(_rate_text(samples) for samples in ([model.beside], model.fair)),
        seconds(model.cold.loading) if model.cold else NOTHING,
        share([model.beside]),
        share(model.fair),
        spent_text(total(sample.cost for sample in model.samples)) or NOTHING,
    )


def _rate_text(samples: Sequence[Sample]) -> str:
    found = spread(samples, rate)
    return f"{'~' * (found is not None and rough(samples))}{spread_text(found, per_second)}"


def state_text(update: FairUpdate) -> str:
    """How far a measurement is, or how it ended."""
    lane = update.lane
    times = f"{counted(lane.repeats, 'time')} each, alone and warm" + ", with cached prefix" * lane.cached
    if lane.state == "running":
        wait = update.seconds_left or 0.0
        left = f", about {f'{wait:.0f} s' if wait < 60 else seconds(wait)} left" if wait else ""
        return f"{update.done} of {update.total}{left}{f': {update.doing}' if update.doing else ''}"
    ends = {
        "stopped": f"Stopped. Meant to be {times}",
        "interrupted": "Interrupted: the app ended before it did",
    }
    return ends.get(lane.state, times)


def remarks(model: FairModel, lane: FairLane) -> list[str]:
    """What to know of a model's figures."""
    cut = lane.state in ("stopped", "interrupted") and len(model.warm) < lane.repeats
    errors = [sample.error for sample in model.warm if sample.error]
    found = [f"Failed: {error}" for error in errors[:1]]
    found += [f"Measured {len(model.warm)} of {lane.repeats} times."] if cut and not errors else []
    if model.shared:
        of = f"{model.shared} of {len(model.warm)}"
        others = "they are left out" if model.shared < len(model.warm) else "the figures are those of a shared machine"
        found.append(f"Other work ran on this machine during {of}: {others}.")
    return [*found, *([model.note] if model.note else [])]


# as Markdown


def fair_markdown(lane: FairLane) -> str:
    """A heading, a table and what to know of it."""
    rows = [HEAD, (":--",) * len(HEAD), *(cells(model) for model in lane.models)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    prompt = " ".join(lane.prompt.split())[:200]
    notes = [f"{called(model.model)}: {remark}" for model in lane.models for remark in remarks(model, lane)]
    return "\n\n".join([f"## One after another: {prompt}", f"*{state_text(FairUpdate(lane))}.*", table, *notes])


# as HTML


def fair_table(lane: FairLane) -> str:
    """The same for a page without a script."""

    def line(row: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>"

    notes = [f"{called(model.model)}: {remark}" for model in lane.models for remark in remarks(model, lane)]
    return (
        f"<h2>One after another: {escape(' '.join(lane.prompt.split())[:200])}</h2>"
        f'<p class="figures">{escape(". ".join([state_text(FairUpdate(lane)), *notes]))}</p>'
        f'<div class="mm-table"><table>{line(HEAD, "th")}'
        f"{''.join(line(cells(model), 'td') for model in lane.models)}</table></div>"
    )


def fair_html(update: FairUpdate, columns: Mapping[str, int]) -> str:
    """The panel of the page. `columns`: where the columns stand now, by their keys."""
    lane = update.lane
    scales = [_most(lane, figure) for figure in (ttft, rate)]
    rows = "".join(_model(model, columns.get(model.key, i), scales, lane) for i, model in enumerate(lane.models))
    return f'{_head(update)}<div class="mm-fair-rows">{rows}</div>'


def _head(update: FairUpdate) -> str:
    lane, bar, button = update.lane, "", ""
    if lane.state == "running":
        done = f"{100 * update.done / max(1, update.total):.0f}"
        bar = f'<div class="mm-bar" role="progressbar" aria-valuenow="{done}"><i style="width:{done}%"></i></div>'
        button = '<button type="button" data-fair="stop">Stop measuring</button>'
    return (
        f'<div class="mm-fair-head"><strong>One after another</strong>'
        f'<span class="mm-fair-prompt" title="{escape(lane.prompt[:1000])}">{escape(lane.prompt[:200])}</span>'
        f'<span role="status">{escape(state_text(update))}</span>{button}'
        f'<button type="button" class="mm-icon mm-i-close" data-fair="close" title="Close">Close</button></div>{bar}'
    )


def _model(model: FairModel, index: int, scales: Sequence[float], lane: FairLane) -> str:
    figures = (("Time to first token", ttft, seconds), ("Tokens per second", rate, per_second))
    bars = "".join(_figure(name, model, f, words, most) for (name, f, words), most in zip(figures, scales, strict=True))
    notes = "".join(f'<div class="mm-fair-note">{escape(remark)}</div>' for remark in remarks(model, lane))
    return (
        f'<div class="mm-fair-model" data-index="{index % 4}"><div class="mm-fair-name">'
        f"<b>{escape(short_name(model.model))}</b> <span>{escape(backend_name(model.model))}</span>"
        f"<em>{escape(verdict(model))}</em></div>{bars}{_more(model)}{notes}</div>"
    )


def verdict(model: FairModel) -> str:
    """What running side by side did to the speed of a model, in a few words; empty where that is not known."""
    alone, beside = spread(model.fair, rate), model.beside.rate
    if not alone or not beside:
        return ""
    times = alone.middle / beside
    if alone.low <= beside <= alone.high or 0.95 <= times <= 1.05:
        return "as fast alone as side by side"
    where, factor = ("alone", times) if times > 1 else ("side by side", 1 / times)
    about = "about " * rough([*model.fair, model.beside])
    return f"{about}{factor:.{0 if factor >= 10 else 1}f} times as fast {where}"


def _figure(name: str, model: FairModel, figure: Figure, words: Words, most: float) -> str:
    alone, mark = spread(model.fair, figure), ""
    if figure is rate:
        mark = "~" * rough(model.fair or [model.beside])
    beside = figure(model.beside)
    together = Spread(beside, beside, beside) if beside is not None else None
    return (
        f'<div class="mm-fair-figure"><span class="mm-fair-what">{name}</span>'
        f"{_bar('side by side', together, words, most, mark)}{_bar('alone', alone, words, most, mark)}</div>"
    )


def _bar(label: str, found: Spread | None, words: Words, most: float, mark: str) -> str:
    text = f"{mark}{spread_text(found, words)}" if found else NOTHING
    short = f"{mark}{words(found.middle)}" if found else NOTHING
    ends = ends_text(found, words)
    bar = ""
    if found and most > 0:
        middle, low, high = (
            min(100.0, max(0.0, 100 * value / most)) for value in (found.middle, found.low, found.high)
        )
        line = f'<u style="left:{low:.1f}%;width:{max(0.5, high - low):.1f}%"></u>' if high > low else ""
        bar = f'<i style="width:{middle:.1f}%"></i>{line}'
    kind = "mm-fair-alone" if label == "alone" else "mm-fair-beside"
    return (
        f'<div class="mm-fair-bar {kind}" title="{label}: {escape(text)}"><span>{label}</span><div>{bar}</div>'
        f"<em>{escape(short)}</em><small>{escape(ends)}</small></div>"
    )


def _most(lane: FairLane, figure: Figure) -> float:
    """The largest value of a figure among all models: the end of their scale."""
    samples = [sample for model in lane.models for sample in (model.beside, *model.fair)]
    return max((value for sample in samples if (value := figure(sample)) is not None), default=0.0)


def _more(model: FairModel) -> str:
    """The figures that have no bar."""
    rows = []
    if model.cold:
        why = "From an empty process to a model that can be asked"
        rows.append((f"cold start {seconds(model.cold.loading)}", why))
    if (beside := share([model.beside])) != NOTHING or share(model.fair) != NOTHING:
        why = "How much of the prompt a cache held, so that it was not read again"
        rows.append((f"prefix cached: {beside} side by side, {share(model.fair)} alone", why))
    if cost := spent_text(total(sample.cost for sample in model.samples)):
        rows.append((f"cost {cost}", "US dollars, of all answers of this measurement"))
    spans = "".join(f'<span title="{escape(why)}">{escape(text)}</span>' for text, why in rows)
    return f'<div class="mm-fair-more">{spans}</div>'
