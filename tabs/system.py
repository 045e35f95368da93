"""The System tab: the devices of this machine, the models in memory and what they are doing; unloads by hand.

Values to HTML above, pure; the widgets below. The page asks for news only while the tab is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr

from multimodel import hardware
from multimodel.engine import Engine
from multimodel.errors import MultimodelError
from multimodel.hardware import Device, Kind
from multimodel.memory.plan import ACCURACY, LEAST_ERROR
from multimodel.pool import Resident

from .format import backend_name, counted, seconds, short_name, size, variations
from .scripted import QUICK, scripted

EVERY = 2.0  # seconds between two looks
TAB = "System"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the tab shows besides the models. Memory in bytes."""

    devices: tuple[Device, ...]
    spare: Mapping[Kind, int]  # kind of device: free and not spoken for
    cores: int  # of the machine
    shared: int  # of them, for models
    idle_minutes: float  # 0: models stay


def system_html(machine: Machine, residents: Sequence[Resident]) -> str:
    """The whole tab."""
    devices = "".join(_device(device, machine, residents) for device in machine.devices)
    return (
        f'<section class="mm-sys"><h2>This machine</h2><div class="mm-sys-devices">{devices}</div>'
        f'<p class="mm-sys-note">{_cores(machine)}</p>'
        f"<h2>Models in memory</h2>{_models(residents)}"
        f'<p class="mm-sys-note">{_entering()} {_leaving(machine)}</p></section>'
    )


def _device(device: Device, machine: Machine, residents: Sequence[Resident]) -> str:
    models = sum(_counted(resident) for resident in residents if resident.device == device.kind)
    free = max(0, min(machine.spare.get(device.kind, device.free), device.total))
    others = max(0, device.total - free - models)
    bar = _share(models, device, "--mm-accent") + _share(others, device, "--mm-soft")
    legend = f"Models {size(models)}, everything else {size(others)}, free {size(free)}"
    return (
        f'<div class="mm-sys-device"><div class="mm-sys-row"><b>{escape(device.kind.upper())}</b>'
        f"<span>{escape(device.name)}</span></div>"
        f'<div class="mm-sys-bar" role="img" aria-label="{legend}">{bar}</div>'
        f'<div class="mm-sys-row"><span class="mm-sys-free"><b>{size(free)}</b> of {size(device.total)} free</span>'
        f"<span>{_legend('models', models)}{_legend('other', others)}</span></div>"
        f'<div class="mm-sys-why" title="The number format that models are loaded with here, and why">'
        f"{escape(device.reason)}</div></div>"
    )


def _counted(resident: Resident) -> int:
    """Bytes: the larger of what its row says is predicted and measured; of a GPU's memory nobody measures a share."""
    return max(resident.taken, resident.measured if resident.device != "cuda" else 0)


def _share(part: int, device: Device, colour: str) -> str:
    return f'<i style="width:{100 * part / max(1, device.total):.1f}%;background:var({colour})"></i>'


def _legend(kind: str, share: int) -> str:
    words = {"models": "models", "other": "everything else"}[kind]
    why = ' title="Of each the larger of what is predicted and what is measured"' if kind == "models" else ""
    return f'<span class="mm-sys-key" data-of="{kind}"{why}>{words} {size(share)}</span>'


def _cores(machine: Machine) -> str:
    """Who may use which cores.

    >>> _cores(Machine((), {}, cores=8, shared=7, idle_minutes=15))
    '8 processor cores. The models that answer share 7; the page keeps 1.'
    """
    kept = machine.cores - machine.shared
    page = f"; the page keeps {kept}" if kept > 0 else ""
    return f"{counted(machine.cores, 'processor core')}. The models that answer share {machine.shared}{page}."


def _entering() -> str:
    """Why a refusal asks for more than was predicted.

    >>> _entering()
    'A model is loaded where its prediction and a margin for error (2%, at least 67.1 MB) fit into what is free.'
    """
    margin = f"{ACCURACY:.0%}, at least {size(LEAST_ERROR)}"
    return f"A model is loaded where its prediction and a margin for error ({margin}) fit into what is free."


def _leaving(machine: Machine) -> str:
    if not machine.idle_minutes:
        return "Models stay until another needs their room."
    minutes = machine.idle_minutes
    after = counted(round(minutes), "minute") if minutes >= 1 else counted(round(60 * minutes), "second")
    return f"A model leaves when nobody has asked it for {after}, or earlier when another needs its room."


def _models(residents: Sequence[Resident]) -> str:
    if not residents:
        return '<div class="mm-sys-empty">None. A model on this machine is loaded by the first question to it.</div>'
    heads = ("Model", "State", "Memory", "Threads", "Answers", "Cache", "")
    head = "".join(f'<th scope="col">{head}</th>' for head in heads)
    rows = "".join(_row(resident) for resident in residents)
    return f'<table class="mm-sys-models"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(resident: Resident) -> str:
    status, answering = resident.status, resident.state == "answering"
    cells = (
        ("Memory", _memory(resident)),
        ("Threads", str(status.threads) if status and answering else "–"),  # an idle one keeps its last share
        ("Answers", _answers(resident)),
        ("Cache", _cache(resident)),
    )
    act = "Stop and unload" if answering else "Unload"
    why = "Its answers end where they are" if answering else "End its process; the next question loads it again"
    name = escape(short_name(resident.spec.id))
    told = f'title="{why}" aria-label="{act} {name}"'
    button = f'<button type="button" data-key="{escape(resident.key)}" {told}>{act}</button>'
    return (
        f'<tr><th scope="row"><b title="{escape(str(resident.spec.id))}">{name}</b>'
        f'<span class="mm-sys-soft">{escape(_about(resident))}</span></th>'
        f'<td data-label="State">{_state(resident)}</td>'
        + "".join(f'<td data-label="{label}">{text}</td>' for label, text in cells)
        + f"<td>{button}</td></tr>"
    )


def _about(resident: Resident) -> str:
    facts, load = resident.facts, resident.spec.load
    usual = replace(load, dtype="auto", context_length=None) if facts else load  # the facts say these
    known = [facts.dtype, f"{facts.context_length:,} tokens of context", facts.device.upper()] if facts else []
    return ", ".join([backend_name(resident.spec.id), *known, *variations(usual)])


def _state(resident: Resident) -> str:
    words = {"loading": "Loading", "answering": "Answering", "idle": "Idle"}[resident.state]
    since = f' <span class="mm-sys-soft">{_since(resident.idle)}</span>' if resident.state == "idle" else ""
    return f'<span class="mm-sys-state mm-sys-{resident.state}">{words}</span>{since}'


def _since(idle: float) -> str:
    """In steps that do not change at every look.

    >>> _since(3), _since(125)
    ('just now', 'for 2 min')
    """
    return "just now" if idle < 60 else f"for {seconds(60 * (idle // 60)).removesuffix(' 0 s')}"


def _memory(resident: Resident) -> str:
    measured = f"<b>{size(resident.measured)}</b>" if resident.measured else "–"
    if not resident.predicted:
        return measured
    why = "Predicted by the memory plan, before it was loaded"
    return f'{measured} <span class="mm-sys-soft" title="{why}">{size(resident.predicted)} predicted</span>'


def _answers(resident: Resident) -> str:
    status = resident.status
    if not status:
        return "–"
    waiting = f' <span class="mm-sys-soft">{status.waiting} waiting</span>' if status.waiting else ""
    slots = resident.facts.slots if resident.facts else status.answering
    return f'{status.answering} <span class="mm-sys-soft">of up to {slots}</span>{waiting}'


def _cache(resident: Resident) -> str:
    status = resident.status
    if not status:
        return "–"
    share = f"{status.reused_tokens / status.prompt_tokens:.0%} of prompt tokens reused" if status.prompt_tokens else ""
    return f'{counted(status.cached_tokens, "token")} held <span class="mm-sys-soft">{share}</span>'


class SystemTab:
    """The widgets of the tab and what they do."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def view(self) -> str:
        """What the tab shows now."""
        engine, pool = self.engine, self.engine.pool
        residents = pool.residents()
        devices = tuple(engine.device(device.kind) for device in engine.hardware().devices)
        spare = {device.kind: pool.spare(device.kind) for device in devices}
        minutes = engine.settings.performance.idle_minutes
        return system_html(Machine(devices, spare, hardware.cores(), pool.cores.total, minutes), residents)

    def selected(self, event: gr.SelectData) -> tuple[Any, Any]:
        """A tab was opened: look at once and go on looking, or stop that."""
        here = event.value == TAB
        return (self.view() if here else gr.skip()), gr.Timer(active=here)

    def unload(self, event: gr.EventData) -> str:
        """A person unloads a model."""
        try:
            self.engine.pool.unload(str(event.key))
        except MultimodelError:
            pass  # it had just left
        return self.view()

    def build(self, tabs: gr.Tabs) -> None:
        """Make the widgets and connect them; `tabs` holds this tab."""
        shown = scripted("system", "mm-system", "", template='<div class="mm-system"></div>')
        timer = gr.Timer(EVERY, active=False)
        timer.tick(self.view, None, [shown], **QUICK)
        tabs.select(self.selected, None, [shown, timer], **QUICK)
        shown.unload_model(self.unload, None, [shown], **QUICK)
