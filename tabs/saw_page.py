"""What an answer was asked with, how likely its tokens were, and where two answers part: values to HTML. Pure.

Every text of a model, a person or a service is escaped here. Tokens go to the page as plain values: its script makes
only text of them.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from typing import Any

from multimodel.backends.remote import message_form
from multimodel.board import Asked
from multimodel.conversation import Lane, Turn
from multimodel.divergence import Divergence, Part, diverge
from multimodel.provenance import Provenance
from multimodel.types import Loaded, Message, Prompt, Sent, TokenLogprob

from .controls import LABELS
from .format import called, counted, size

Rows = Iterable[tuple[str, str]]

SHOWN_TOKENS = 4000  # of a prompt, from its beginning and its end; of an answer, from its beginning
ROLES = {"system": "System", "user": "Person", "assistant": "Model", "tool": "Result of a tool"}
EXACT = {
    True: "Exactly these were sent: their digest is the one that was written down with the answer.",
    False: "Rebuilt from the conversation. What was sent was another text: its digest, written down then, differs.",
    None: "Rebuilt from the conversation. This answer was made before the app wrote down what it sends.",
}
SLOW = ("files", "prompt")
"""What takes longer to find out, and is fetched by a request of its own: `files_html` and `prompt_html`."""

LOOKING = '<p class="mm-saw-soft" role="status">Looking it up</p>'


def asked_html(asked: Asked, key_var: str) -> str:
    """What is known of how an answer was asked at once; SLOW is filled in later. `key_var`: where its key is."""
    sent = asked.turn.answer.sent or Sent()
    parts = [
        _section("Messages", _messages(asked.messages, sent.dropped), EXACT[asked.exact]),
        _section("Parameters", _parameters(asked)),
    ]
    if sent.request:
        parts.append(_section("Request", _request(asked, sent, key_var), "As it left. Its key is in no record."))
        parts.append(_section("What the service says", _rows(_reply(sent)) or _soft("Nothing about itself.")))
    elif sent.loaded:
        parts.append(_section("How it was loaded", _rows(_loaded(sent.loaded))))
    else:
        parts.append(_section("How it was run", _soft("Not known: nothing was written down of it.")))
    slow = "".join(f'<div data-slow="{part}">{LOOKING}</div>' for part in SLOW) if sent.loaded else ""
    return "".join(parts) + slow + _section("Versions", _rows(sent.versions) or _soft("Not known."))


def _section(title: str, body: str, note: str = "") -> str:
    told = f'<p class="mm-saw-soft">{escape(note)}</p>' if note else ""
    return f"<section><h3>{title}</h3>{told}{body}</section>"


def _soft(text: str) -> str:
    return f'<p class="mm-saw-soft">{escape(text)}</p>'


def _rows(rows: Rows) -> str:
    """A list of names and values; empty where there is none."""
    found = [(name, value) for name, value in rows if value]
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in found)
    return f"<dl>{cells}</dl>" if cells else ""


def _messages(messages: Sequence[Message], dropped: int) -> str:
    others = [at for at, message in enumerate(messages) if message.role != "system"]
    gone = frozenset(others[:dropped])
    return "".join(_message(message, at in gone) for at, message in enumerate(messages))


def _message(message: Message, gone: bool) -> str:
    said = ' <b class="mm-saw-gone">left out: it did not fit into the context</b>' if gone else ""
    kind = " data-gone" if gone else ""
    return (
        f'<div class="mm-saw-message"{kind}><span>{ROLES.get(message.role, escape(message.role))}{said}</span>'
        f"<pre>{escape(message.content)}</pre>{_beside(message)}</div>"
    )


def _beside(message: Message) -> str:
    """What a message holds beside its text."""
    calls = [f"Calls {call.name} with {call.arguments}" for call in message.calls]
    pictures = [f"A picture, {image.media_type}, {size(len(image.data))}" for image in message.images]
    return "".join(f"<pre>{escape(line)}</pre>" for line in [*pictures, *calls])


def _parameters(asked: Asked) -> str:
    """What was asked for, and what became of it."""
    answer, wanted = asked.turn.answer, asked.turn.asked.params.asdict()
    sent = answer.params.asdict() if answer.params else {}
    known = answer.params is not None
    rows = []
    for name in {**wanted, **sent}:
        value = sent.get(name, wanted.get(name))
        fate = "sent" if name in sent else "left out: this backend does not take it" if known else "not known"
        if f"{name} is not taken by this model; it was left out." in answer.notes:
            fate = "left out: the service refused it"
        mark = "" if fate == "sent" else " data-gone"
        label = LABELS[name][0] if name in LABELS else name
        rows.append(
            f"<tr{mark}><th scope='row'>{escape(label)}</th><td>{escape(_value(value))}</td><td>{fate}</td></tr>"
        )
    if not rows:
        return _soft("None: the model was asked with its own defaults.")
    return f"<table><thead><tr><th>Parameter</th><th>Value</th><th></th></tr></thead>{''.join(rows)}</table>"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _loaded(loaded: Loaded) -> Rows:
    changed = datetime.fromtimestamp(loaded.changed / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC") if loaded.changed else ""
    template = {"own": "the model's own", "plain": "none: it continues plain text"}
    return (
        ("Number format", loaded.dtype),
        ("KV cache", loaded.kv_type or "f16, the usual" if loaded.file.endswith(".gguf") else ""),
        ("Context", f"{loaded.context_length:,} tokens" if loaded.context_length else ""),
        ("Device", loaded.device),
        ("Threads", str(loaded.threads) if loaded.threads else ""),
        ("Chat template", template.get(loaded.template, "")),
        ("File", ", ".join(filter(None, [loaded.file, size(loaded.size) if loaded.size else "", changed]))),
    )


def files_html(files: Provenance | None) -> str:
    """Which files a local model is."""
    if files:
        found = _rows((("Commit on the Hub", files.revision), ("SHA-256", files.file_hash))) or _soft("Not known.")
    else:
        found = _soft("What lies here now is not what answered, or is gone: its hash and revision are not known.")
    return _section("Files", found)


def prompt_html(asked: Asked, prompt: Prompt | None, why: str = "") -> str:
    """The prompt as a local model reads it; `why` there is none."""
    return _section("Prompt as the model reads it", _prompt(asked, prompt, why))


def _prompt(asked: Asked, prompt: Prompt | None, why: str) -> str:
    if not prompt:
        load = '<button type="button" data-saw-load>Load the model to see it</button>' if not why else ""
        return _soft(why or "The model is not in memory.") + load
    answer, sent = asked.turn.answer, asked.turn.answer.sent or Sent()
    if sent.prompt:
        same = prompt.digest == sent.prompt
    else:
        same = bool(answer.usage) and answer.usage.input_tokens == len(prompt.tokens)  # type: ignore[union-attr]
    told = "Token for token what was read." if same else "The model reads it otherwise now than when it answered."
    reused = f", {answer.usage.reused_tokens:,} of them reused" if answer.usage and answer.usage.reused_tokens else ""
    typed = f" {counted(prompt.stripped, 'character')} of typed special tokens were taken out." * bool(prompt.stripped)
    count = f"{counted(len(prompt.tokens), 'token')}{reused}. {told}{typed}"
    return (
        f"{_soft(count)}<details><summary>Rendered by the chat template</summary><pre>{escape(prompt.text)}</pre>"
        f"</details><details><summary>Tokens and their ids</summary>{_tokens(prompt.tokens)}</details>"
    )


def _tokens(tokens: Sequence[tuple[int, bytes]]) -> str:
    half = SHOWN_TOKENS // 2
    if len(tokens) <= SHOWN_TOKENS:
        return f'<ol class="mm-saw-ids">{"".join(map(_token, tokens))}</ol>'
    gap = f'<li class="mm-saw-soft">{len(tokens) - SHOWN_TOKENS:,} tokens are not shown</li>'
    shown = [*map(_token, tokens[:half]), gap, *map(_token, tokens[-half:])]
    return f'<ol class="mm-saw-ids">{"".join(shown)}</ol>'


def _token(token: tuple[int, bytes]) -> str:
    return f"<li><code>{escape(visible(token[1].decode('utf-8', 'replace')))}</code><small>{token[0]}</small></li>"


def visible(text: str) -> str:
    """A token whose white space can be seen.

    >>> visible(" a\\n"), visible("")
    ('␣a⏎', '∅')
    """
    return text.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍") or "∅"


# the request of a remote model


def _body(asked: Asked, sent: Sent) -> dict[str, Any]:
    try:
        rest = json.loads(sent.request)
    except (ValueError, RecursionError):  # of a file that somebody has written
        rest = {}
    if not isinstance(rest, dict):
        rest = {}
    messages = [message_form(_without_data(message)) for message in asked.messages]
    return {"model": rest.pop("model", ""), "messages": messages, **rest}


def _without_data(message: Message) -> Message:
    """Pictures would be millions of letters here: in their place stands how they begin."""
    return replace(message, images=tuple(replace(image, data=image.data[:12]) for image in message.images))


def curl(address: str, body: dict[str, Any], key_var: str) -> str:
    """The same request as a command; the key is a variable of the shell."""
    key = f'\\\n  -H "Authorization: Bearer ${key_var}" ' if key_var else ""
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"curl -N {shlex.quote(address)} {key}\\\n  -H 'Content-Type: application/json' \\\n  -d {data}"


def python(address: str, body: dict[str, Any], key_var: str) -> str:
    """The same request as a program without other packages."""
    key = f', "Authorization": f"Bearer {{os.environ[{key_var!r}]}}"' if key_var else ""
    return (
        f"import json\nimport os\nimport urllib.request\n\nbody = {body!r}\n"
        f'headers = {{"Content-Type": "application/json"{key}}}\n'
        f"request = urllib.request.Request({address!r}, json.dumps(body).encode(), headers)\n"
        "with urllib.request.urlopen(request) as answer:\n    for line in answer:\n"
        '        print(line.decode(), end="")\n'
    )


def _request(asked: Asked, sent: Sent, key_var: str) -> str:
    body = _body(asked, sent)
    text = json.dumps(body, indent=1, ensure_ascii=False)
    copies = (
        ("Copy as curl", curl(sent.address, body, key_var)),
        ("Copy as Python", python(sent.address, body, key_var)),
    )
    buttons = "".join(
        f'<button type="button" data-saw-copy>{words}</button><template>{escape(source)}</template>'
        for words, source in copies
    )
    return (
        f'<div class="mm-saw-copies">{buttons}</div><p><code>POST {escape(sent.address)}</code></p>'
        f"<details><summary>Body</summary><pre>{escape(text)}</pre></details>"
    )


def _reply(sent: Sent) -> Rows:
    return (
        ("Model", sent.model),
        ("Fingerprint", sent.fingerprint),
        ("Answer", sent.response),
        ("Request", sent.request_id),
    )


# the tokens of an answer


def minus(number: float) -> str:
    """A number that is mostly negative, to three places.

    >>> minus(-0.0136), minus(-0.0)
    ('−0.014', '0.000')
    """
    return f"{number:.3f}".replace("-0.000", "0.000").replace("-", "−")


def tokens_view(tokens: Sequence[TokenLogprob], text: str) -> dict[str, Any]:
    """The probabilities as the page shows them: "rows" of a text, a log-probability and alternatives; and a summary."""
    if not tokens:
        return {"html": NO_TOKENS, "rows": []}
    mean = sum(max(token.logprob, -1000.0) for token in tokens) / len(tokens)
    least = sorted(range(min(len(tokens), SHOWN_TOKENS)), key=lambda at: tokens[at].logprob)[:8]
    known = sum(len(token.data) for token in tokens)
    part = "" if known >= len(text.encode()) else " They are those of its last part: it was continued."
    told = (
        f"{counted(len(tokens), 'token')}, mean log-probability {minus(mean)}, perplexity {math.exp(-mean):.2f}: "
        f"the model was as unsure as among {math.exp(-mean):.1f} equally likely tokens.{part}"
    )
    more = _soft(f"The first {SHOWN_TOKENS:,} are shown.") if len(tokens) > SHOWN_TOKENS else ""
    rows = [
        [token.text, round(token.logprob, 4), [[other.text, round(other.logprob, 4)] for other in token.alternatives]]
        for token in tokens[:SHOWN_TOKENS]
    ]
    return {"html": _soft(told) + more + TOKENS, "rows": rows, "least": least}


LEGEND = (("0", "90% and more"), ("1", "50 to 90%"), ("2", "20 to 50%"), ("3", "5 to 20%"), ("4", "below 5%"))
TOKENS = (
    '<div class="mm-saw-legend" aria-label="Probability of a token">'
    + "".join(f'<span><i data-p="{step}">ab</i> {words}</span>' for step, words in LEGEND)
    + '</div><div class="mm-saw-text" role="group" aria-label="Tokens: arrow keys move between them"></div>'
    '<div class="mm-saw-token" role="status">Point at a token, or go to one with the arrow keys.</div>'
    '<section><h3>Least likely</h3><div class="mm-saw-least"></div></section>'
)
NO_TOKENS = (
    "<p>There are no probabilities for this answer: they were not asked for, or its service has none.</p>"
    "<p>Set <b>Token probabilities</b> above 0 in the settings, then ask again. Models on this machine and most "
    "services of OpenAI's protocol give them.</p>"
    '<button type="button" data-saw-settings>Open the settings</button>'
)


# two answers


def compare_html(turn: Turn, versions: Sequence[tuple[Lane, Turn]], other: int | None) -> str:
    """An answer beside another to the same prompt; `other`: which, the first one of another column where it is None."""
    others = [(lane, each) for lane, each in versions if each.id != turn.id]
    if not others:
        return _soft("There is no other answer to this prompt yet. Ask it in another column, or ask again here.")
    elsewhere = [pair for pair in others if pair[0].key != turn.column] or others
    chosen = next((pair for pair in others if pair[1].id == other), _newest(elsewhere))
    names = _names([each for _, each in versions])
    options = "".join(
        f'<option value="{each.id}"{" selected" if each is chosen[1] else ""}>{escape(names[each.id])}</option>'
        for _, each in others
    )
    found = diverge(turn.answer.text, chosen[1].answer.text)
    return (
        f'<label class="mm-saw-other">Compare with <select data-saw-other>{options}</select></label>'
        f"<p><b>{escape(_parting(found))}</b></p>{_soft(_agreement(found))}"
        f'<div class="mm-saw-sides">{_side(names[turn.id], found, "left")}'
        f"{_side(names[chosen[1].id], found, 'right')}</div>"
    )


def _newest(found: Sequence[tuple[Lane, Turn]]) -> tuple[Lane, Turn]:
    """The newest answer of the first column among these."""
    return [pair for pair in found if pair[0].key == found[0][0].key][-1]


def _names(turns: Sequence[Turn]) -> dict[int, str]:
    """By its id what each answer is called: its model, and which of the model's answers where there are several."""
    alike: dict[str, list[int]] = {}
    for turn in turns:
        alike.setdefault(called(turn.answer.model), []).append(turn.id)
    return {
        id: f"{name}, answer {at} of {len(ids)}" if len(ids) > 1 else name
        for name, ids in alike.items()
        for at, id in enumerate(ids, 1)
    }


def _parting(found: Divergence) -> str:
    if found.equal:
        return "They are the same, word for word."
    left, right = (f"“{words}”" if words else "it ends" for words in (found.next("left"), found.next("right")))
    where = f"after {counted(found.same, 'word')}" if found.same else "at the first word"
    return f"They part {where}: on the left {left}, on the right {right}."


def _agreement(found: Divergence) -> str:
    """The score and how it is counted."""
    rest = "" if found.compared else " Of long answers, only the words soon after the first difference are compared."
    return (
        f"Agreement {found.agreement:.0%}: the words that both have in the same order, twice, over all words of both."
        f"{rest}"
    )


def _side(name: str, found: Divergence, side: str) -> str:
    first = True
    parts = []
    for part in found.parts:
        if part.kind not in ("both", side):
            continue
        parts.append(_part(part, first))
        first = first and part.kind == "both"
    return f'<section><h3>{escape(name)}</h3><div class="mm-saw-side">{"".join(parts)}</div></section>'


def _part(part: Part, before: bool) -> str:
    text = escape(part.text)
    if part.kind == "both":
        return text if before else f"<span>{text}</span>"
    tag, sign = ("del", "−") if part.kind == "left" else ("ins", "+")
    mark = '<i class="mm-saw-fork" aria-label="here they part"></i>' if before else ""
    return f'{mark}<{tag}><b aria-hidden="true">{sign}</b>{text}</{tag}>'
