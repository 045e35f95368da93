"""Charts of a report: SVG without a script. Pure; every text is escaped here.

Positions are shares of the width, so a chart fits any screen and its letters stay as large as those around it. A lane
has its letter and its colour in all of them, in the table of answers and in the map of agreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

COLOURS = 8  # of lanes; then they begin again, under other letters
PLOT = 80.0  # per cent of the width, usually: the rest is for the figure after the longest bar
ROW, TOP, BAR = 40, 4, 14  # pixels


class Bar(NamedTuple):
    """A value of a lane. `mark`: a second one, shown as a line."""

    lane: int
    name: str
    value: float
    text: str
    mark: float | None = None


class Part(NamedTuple):
    """A piece of a stacked bar; its meaning is one of good, caution and bad."""

    words: str
    meaning: str
    answers: int


def letter(lane: int) -> str:
    """What a lane is called in charts and tables.

    >>> letter(0), letter(27)
    ('A', 'B1')
    """
    return f"{chr(65 + lane % 26)}{lane // 26 or ''}"


def key(lane: int, name: str = "") -> str:
    """The letter of a lane in its colour, and its name."""
    return f'<b class="mb-key mb-l{lane % COLOURS}">{letter(lane)}</b>{escape(name)}'


def ticks(most: float, count: int = 4) -> list[float]:
    """Round values from zero to at least `most`.

    >>> ticks(95), ticks(0.7)
    ([0.0, 25.0, 50.0, 75.0, 100.0], [0.0, 0.2, 0.4, 0.6, 0.8])
    """
    rough = most / count
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [float(f"{i * step:.12g}") for i in range(ceil(most / step - 1e-9) + 1)]


def bars(title: str, axis: str, rows: Sequence[Bar], note: str = "", plot: float = PLOT) -> str:
    """A bar for each lane; nothing where nothing is known. `axis`: what is measured, with its unit."""
    if not rows or (most := max(max(row.value, row.mark or 0) for row in rows)) <= 0:
        return ""
    scale = ticks(most)
    share = plot / scale[-1]
    drawn = "".join(_bar(row, TOP + i * ROW, share) for i, row in enumerate(rows))
    said = ", ".join(f"{letter(row.lane)} {row.name} {row.text}" for row in rows)
    return _figure(title, note, said, len(rows), [(value * share, f"{value:g}") for value in scale], axis, drawn)


def _bar(row: Bar, top: int, share: float) -> str:
    width = row.value * share
    end = max(width, (row.mark or 0) * share)
    middle = top + 20 + BAR / 2
    mark = ""
    if row.mark is not None:
        x = f"{row.mark * share:.2f}%"
        mark = (
            f'<line x1="{width:.2f}%" x2="{x}" y1="{middle}" y2="{middle}" class="mb-whisker"/>'
            f'<line x1="{x}" x2="{x}" y1="{top + 20}" y2="{top + 20 + BAR}" class="mb-whisker"/>'
        )
    return (
        f"{_label(row.lane, row.name, top)}"
        f'<rect x="0" y="{top + 20}" width="{max(width, 0.4):.2f}%" height="{BAR}" rx="3" '
        f'class="mb-f{row.lane % COLOURS}"/>{mark}'
        f'<text x="{end:.2f}%" dx="6" y="{top + 20 + BAR - 3}" class="mb-value">{escape(row.text)}</text>'
    )


def stacks(title: str, axis: str, rows: Sequence[tuple[int, str, Sequence[Part]]]) -> str:
    """A bar of parts for each lane, and what the parts mean."""
    most = max((sum(part.answers for part in parts) for _, _, parts in rows), default=0)
    if not most:
        return ""
    scale = [value for value in ticks(most) if value == int(value)]
    share = PLOT / max(scale[-1], most)
    drawn = "".join(_stack(lane, name, parts, TOP + i * ROW, share) for i, (lane, name, parts) in enumerate(rows))
    said = ", ".join(f"{letter(lane)} {name}: {_counted(parts)}" for lane, name, parts in rows)
    legend = "".join(
        f'<span><i class="mb-{meaning}"></i>{words}</span>'
        for words, meaning in {(part.words, part.meaning): None for _, _, parts in rows for part in parts}
    )
    marks = [(value * share, f"{value:.0f}") for value in scale]
    return _figure(title, f'<span class="mb-legend">{legend}</span>', said, len(rows), marks, axis, drawn)


def _stack(lane: int, name: str, parts: Sequence[Part], top: int, share: float) -> str:
    drawn, at = _label(lane, name, top), 0.0
    for part in parts:
        width = part.answers * share
        drawn += (
            f'<rect x="{at:.2f}%" y="{top + 20}" width="{width:.2f}%" height="{BAR}" class="mb-{part.meaning}">'
            f"<title>{part.answers:,} {part.words}</title></rect>"
        )
        at += width
    text = escape(_counted(parts, short=True))
    return drawn + f'<text x="{at:.2f}%" dx="6" y="{top + 20 + BAR - 3}" class="mb-value">{text}</text>'


def _counted(parts: Sequence[Part], short: bool = False) -> str:
    if short:
        return " + ".join(f"{part.answers:,}" for part in parts if part.answers)
    return ", ".join(f"{part.answers:,} {part.words}" for part in parts if part.answers)


def _label(lane: int, name: str, top: int) -> str:
    return (
        f'<text y="{top + 13}"><tspan class="mb-letter mb-f{lane % COLOURS}">{letter(lane)}</tspan>'
        f'<tspan dx="6">{escape(name)}</tspan></text>'
    )


def _figure(
    title: str, note: str, said: str, rows: int, marks: Sequence[tuple[float, str]], axis: str, drawn: str
) -> str:
    bottom = TOP + rows * ROW
    middle = f"{marks[-1][0] / 2:.1f}%"
    grid = "".join(_tick(x, words, bottom) for x, words in marks)
    return (
        f'<figure class="mb-chart"><figcaption><b>{escape(title)}</b>{note}</figcaption>'
        f'<svg width="100%" height="{bottom + 38}" role="img" aria-label="{escape(f"{title}: {said}")}">{grid}{drawn}'
        f'<text x="{middle}" y="{bottom + 33}" text-anchor="middle" class="mb-tick">{escape(axis)}</text>'
        "</svg></figure>"
    )


def _tick(x: float, words: str, bottom: int) -> str:
    anchor = "middle" if x else "start"
    return (
        f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="{TOP}" y2="{bottom}" class="mb-grid"/>'
        f'<text x="{x:.2f}%" y="{bottom + 16}" text-anchor="{anchor}" class="mb-tick">{words}</text>'
    )
