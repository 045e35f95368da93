"""What is around the tabs: the header and the theme."""

from __future__ import annotations

from html import escape

import gradio as gr

from multimodel import hardware
from multimodel.engine import Engine
from multimodel.settings import Settings

from .format import size
from .scripted import asset

SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONO_FONTS = ["ui-monospace", "SF Mono", "Cascadia Code", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]


def header_html(settings: Settings, found: hardware.Hardware | None = None) -> str:
    """Name, hardware chip and theme switch. Until the hardware is `found`, the chip says what is known at once."""
    switch = '<button type="button" id="mm-theme" title="Switch between light and dark">Light or dark</button>'
    skip = '<a class="mm-skip" href="#mm-prompt">Skip to the prompt</a>'
    return f'{skip}<div class="mm-brand">MultiModel</div><div class="mm-grow"></div>{_chip(settings, found)}{switch}'


def _chip(settings: Settings, found: hardware.Hardware | None) -> str:
    cores = settings.performance.threads or hardware.cores()
    memory = hardware.memory()
    name, free, total, why = "CPU", memory.free, memory.total, "Looking for a GPU"
    if found:
        best = found.best
        name, free, total = best.kind.upper(), best.free, best.total
        why = "\n".join(f"{device.name}: {device.dtype}. {device.reason}" for device in found.devices)
    count = f", {cores} {'core' if cores == 1 else 'cores'}" if name == "CPU" else ""
    text = f"{name}{count}, {size(free)} of {size(total)} free"
    return f'<span class="mm-chip" title="{escape(why)}">{escape(text)}</span>'


def header(engine: Engine, page: gr.Blocks) -> None:
    """The top line of the page; the devices are looked for once the first page is open."""
    bar = gr.HTML(
        header_html(engine.settings),
        elem_id="mm-header",
        apply_default_css=False,
        js_on_load=asset("header.js"),
    )

    def found() -> str:
        return header_html(engine.settings, engine.hardware())

    page.load(found, None, [bar], show_progress="hidden", api_visibility="private", concurrency_limit=None)


def announcer() -> gr.HTML:
    """The place that a screen reader listens to."""
    return gr.HTML(
        '<div role="status" aria-live="polite"></div>',
        js_on_load=asset("announce.js"),
        apply_default_css=False,
        elem_id="mm-announcer",
        elem_classes="mm-aside",
    )


def theme() -> gr.themes.Base:
    """Gradio's own widgets in the colours and fonts of assets/style.css; fonts of the system, nothing fetched."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.zinc,
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
        font=SYSTEM_FONTS,
        font_mono=MONO_FONTS,
    )
