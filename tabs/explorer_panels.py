"""Downloads, the models on this machine and the ratings in the Explorer: values to HTML. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from html import escape
from typing import TYPE_CHECKING

from multimodel.leaderboard import standing
from multimodel.ratings import key

from .explorer_list import ago, linked
from .format import counted, part_of, seconds, size
from .leaderboard_page import More, table_html

if TYPE_CHECKING:
    from multimodel.downloads import Download
    from multimodel.ratings import Rating, Ratings, Snapshot
    from multimodel.stored import Inventory, Stored
    from multimodel.votes import Vote

STATES = {
    "queued": "Waiting for its turn",
    "running": "Downloading",
    "paused": "Paused",
    "interrupted": "Interrupted",
    "failed": "Failed",
    "done": "Done",
}
ACTS = {  # what can be done in each state: (what, word)
    "queued": (("pause", "Pause"), ("cancel", "Cancel")),
    "running": (("pause", "Pause"), ("cancel", "Cancel")),
    "paused": (("resume", "Resume"), ("cancel", "Cancel")),
    "interrupted": (("resume", "Resume"), ("cancel", "Cancel")),
    "failed": (("resume", "Try again"), ("cancel", "Dismiss")),
    "done": (("chat", "Chat with it"), ("cancel", "Dismiss")),
}


def downloads_html(downloads: Sequence[Download]) -> str:
    """All downloads, the newest first."""
    return "".join(download_html(download) for download in reversed(downloads))


def download_html(download: Download) -> str:
    """One download: how far, how fast, how long still; what can be done."""
    id, share = escape(str(download.model)), download.progress.fraction or 0.0
    name = download.model.name.rpartition("/")[2]
    buttons = "".join(
        f'<button type="button" data-download-act="{act}" data-id="{id}">{word}</button>'
        for act, word in ACTS[download.state]
    )
    error = download.error
    failure = f'<p class="mx-bad">{escape(str(error))} {linked(error.hint)}</p>' if error else ""
    return (
        f'<div class="mx-download mx-is-{download.state}" data-download-id="{id}" data-state="{download.state}">'
        f'<div class="mx-download-top"><b title="{id}">{escape(name)}</b><span>{escape(progress_text(download))}</span>'
        f'<span class="mx-download-acts">{buttons}</span></div>'
        f'<div class="mm-bar" role="progressbar" aria-valuenow="{100 * share:.0f}" aria-label="{escape(name)}">'
        f'<i style="width:{100 * share:.1f}%"></i></div>{failure}</div>'
    )


def progress_text(download: Download) -> str:
    """How a download stands, in one line.

    >>> from multimodel.downloads import Download
    >>> from multimodel.jobs import Progress
    >>> from multimodel.types import ModelId
    >>> half = Progress(2_000_000_000, 4_000_000_000, 50_000_000)
    >>> progress_text(Download(ModelId("gguf", "o/r:Q4_0"), "running", half))
    '50 %, 2.0 of 4.0 GB, 50.0 MB/s, 40.0 s left'
    """
    progress = download.progress
    if download.state == "done":
        return f"Done, {size(progress.total)}"
    if not progress.total:
        return STATES[download.state] if download.state != "running" else "Asking the Hub"
    amount = f"{100 * (progress.fraction or 0):.0f} %, {part_of(progress.done, progress.total)}"
    if download.state != "running":
        return f"{STATES[download.state]} at {amount}"
    speed = f", {size(progress.rate)}/s" if progress.rate > 0 else ", nothing comes at the moment"
    left = f", {seconds(progress.seconds_left)} left" if progress.seconds_left else ""
    return f"{amount}{speed}{left}"


# my models


def mine_html(inventory: Inventory, today: date) -> str:
    """What is on the disk, with the room that deleting it makes."""
    head = f"<p class='mx-soft'>{size(inventory.size)} in models, {size(inventory.free)} free on the disk.</p>"
    if not inventory.models and not inventory.leftovers:
        return f'{head}<div class="mx-quiet">No model has been downloaded yet. Find one under Search.</div>'
    rows = "".join(_stored(item, today) for item in inventory.models)
    table = f'<ul class="mx-mine">{rows}</ul>' if rows else ""
    return f"{head}{table}{_leftovers(inventory.leftovers)}"


def _stored(item: Stored, today: date) -> str:
    used = f"read {ago(item.used.date(), today)}" if item.used else ""
    commits = ", ".join(commit[:7] for commit in item.revisions)
    soft = ", ".join(part for part in (item.detail, used, f"revision {commits}" if commits else "") if part)
    chat = f'<button type="button" data-chat="{escape(item.model)}">Chat with it</button>'
    incomplete = '<span class="mx-fit mx-tight"><b>Incomplete</b></span>'
    owner, slash, name = item.name.rpartition("/")
    return (
        f'<li data-key="{escape(item.key)}"><div><b><i>{escape(owner + slash)}</i>{escape(name)}</b>'
        f'<span class="mx-soft">{escape(soft)}</span></div><span class="mx-size">{size(item.size)}</span>'
        f"<span>{chat if item.model else incomplete}"
        f'<button type="button" data-delete="{escape(item.key)}" data-frees="{size(item.size)}">Delete</button>'
        "</span></li>"
    )


def _leftovers(items: Sequence[Stored]) -> str:
    if not items:
        return ""
    total, keys = size(sum(item.size for item in items)), escape("\n".join(item.key for item in items))
    names = ", ".join(sorted({item.name for item in items}))
    delete = f'<button type="button" data-delete="{keys}" data-frees="{total}">Delete</button>'
    return (
        '<div class="mx-leftovers"><div><b>Left of broken downloads</b>'
        f'<span class="mx-soft">{escape(names)}</span></div><span class="mx-size">{total}</span>'
        f"<span>{delete}</span></div>"
    )


# ratings


def ratings_html(rated: Ratings, chosen: int) -> str:
    """One snapshot as dots with whiskers, a choice of snapshots, and one model against another."""
    if not rated.snapshots:
        return '<div class="mx-quiet">No ratings are known. Import a table of the Arena.</div>'
    snapshot = rated.snapshots[min(chosen, len(rated.snapshots) - 1)]
    options = "".join(
        f'<option value="{i}"{" selected" if found is snapshot else ""}>'
        f"{found.day:%d %B %Y}, {len(found.ratings)} models</option>"
        for i, found in enumerate(rated.snapshots)
    )
    names = "".join(f'<option value="{escape(rating.name)}"></option>' for rating in snapshot.ratings)
    fields = "".join(
        f'<input type="text" data-versus="{key}" list="mx-names" placeholder="{hint}" aria-label="{label}">'
        for key, hint, label in (("one", "One model", "One model"), ("other", "against another", "Another model"))
    )
    return (
        '<div class="mx-ratings-head"><label class="mx-knob"><span>Snapshot</span>'
        f"<select data-snapshot>{options}</select></label>"
        '<button type="button" data-do="import">Import a newer one</button></div>'
        f'<p class="mx-soft">{escape(snapshot.source)}. {linked(snapshot.url)}</p>'
        f'<div class="mx-versus">{fields}<datalist id="mx-names">{names}</datalist>'
        '<output data-versus-out role="status"></output></div>'
        f"{_board(rated, snapshot)}"
    )


def own_html(votes: Sequence[Vote], rated: Ratings) -> str:
    """The ratings by the visitor's own votes, beside them the Arena's where it rates the same model."""
    found = standing([vote.ballot for vote in votes])
    if not found.ratings:
        text = "Compare answers in Chat and vote below them: your own ratings stand here, beside the Arena's."
        return f'<h3>Your votes</h3><p class="mx-soft">{text}</p>'
    scores = {r.model: f"{known.score:.0f}" for r in found.ratings if (known := arena_rating(r.model, rated))}
    why = "The Arena's score of the model before it was quantised; the two scales have different zeros"
    table = table_html(found.ratings, More("Arena", why, scores))
    button = '<button type="button" data-do="leaderboard">Open the leaderboard</button>'
    return f'<div class="mx-own-head"><h3>Your {counted(len(votes), "vote")}</h3>{button}</div>{table}'


def arena_rating(model: str, rated: Ratings) -> Rating | None:
    """What the Arena says of a model of Chat; None where no line of its names says that it is the same.

    A quantisation by the model's own makers is the model; the rest of an id is where it is served.
    """
    name = model.partition(":")[2].partition(":")[0]
    whole = name.removesuffix("-GGUF").removesuffix("-gguf")
    return rated.of(name, whole) or next((r for s in rated.snapshots if (r := s.of([key(name)]))), None)


def _board(rated: Ratings, snapshot: Snapshot) -> str:
    low = min((r.low or r.score for r in snapshot.ratings), default=0.0)
    high = max((r.high or r.score for r in snapshot.ratings), default=1.0)
    rows = "".join(_rating(i, r, rated.repository(r.name), low, high) for i, r in enumerate(snapshot.ratings, 1))
    return (
        '<table class="mx-ratings"><thead><tr><th scope="col">Rank</th><th scope="col">Model</th>'
        '<th scope="col">Score</th>'
        f'<th scope="col" class="mx-axis"><div class="mx-axis-ends"><span>{low:.0f}</span><span>95 % interval</span>'
        f"<span>{high:.0f}</span></div></th>"
        f'<th scope="col">Votes</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _rating(rank: int, rating: Rating, repository: str, low: float, high: float) -> str:
    def at(value: float) -> float:
        return 100 * (value - low) / max(1.0, high - low)

    below, above = rating.low or rating.score, rating.high or rating.score
    name = escape(rating.name)
    opened = f'<button type="button" class="mx-link" data-open="{escape(repository)}">{name}</button>'
    return (
        f'<tr><td>{rank}</td><th scope="row">{opened if repository else name}</th><td>{rating.score:.0f}</td>'
        f'<td class="mx-axis"><i class="mx-whisker" style="left:{at(below):.2f}%;right:{100 - at(above):.2f}%"></i>'
        f'<i class="mx-point" style="left:{at(rating.score):.2f}%" title="{below:.0f} to {above:.0f}"></i></td>'
        f"<td>{f'{rating.votes:,}' if rating.votes else '–'}</td></tr>"
    )


def versus_text(one: Rating, other: Rating, probability: float) -> str:
    """How likely one is preferred to the other, and how sure that is."""
    overlap = (one.low or one.score) <= (other.high or other.score) and (other.low or other.score) <= (
        one.high or one.score
    )
    sure = " Their intervals overlap: it may be the other way round." if overlap else ""
    return (
        f"{one.name} is preferred to {other.name} in {100 * probability:.0f} of 100 votes "
        f"({one.score:.0f} to {other.score:.0f}, {one.day:%d %B %Y}).{sure}"
    )


def freed_text(count: int, at: datetime) -> str:
    """What a deletion made free.

    >>> freed_text(4_920_739_232, datetime(2026, 1, 2, 15, 4))
    '4.9 GB freed at 15:04.'
    """
    return f"{size(count)} freed at {at:%H:%M}."
