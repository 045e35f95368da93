"""What is around the tabs: the header and the theme."""

from __future__ import annotations

from html import escape

import gradio as gr

from multimodel.engine import Engine
from multimodel.hardware import Hardware, cores, memory

from .format import counted, size
from .scripted import asset

SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONO_FONTS = ["ui-monospace", "SF Mono", "Cascadia Code", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]


def header_html(free: str, found: Hardware | None = None) -> str:
    """Name, hardware chip and theme switch. `free`: memory, in words. `found`: the devices, once they are known."""
    switch = '<button type="button" id="mm-theme" title="Switch between light and dark">Light or dark</button>'
    skip = '<a class="mm-skip" href="#mm-prompt">Skip to the prompt</a>'
    return f'{skip}<div class="mm-brand">MultiModel</div><div class="mm-grow"></div>{_chip(free, found)}{switch}'


def _chip(free: str, found: Hardware | None) -> str:
    name, why = "CPU", "Looking for a GPU"
    if found:
        name = found.best.kind.upper()
        why = "\n".join(f"{device.name}: {device.dtype}. {device.reason}" for device in found.devices)
    count = f", {counted(cores(), 'core')}" if name == "CPU" else ""
    text = f"{name}{count}, {free}"
    return f'<span class="mm-chip" title="{escape(why)}">{escape(text)}</span>'


def free_text(free: int, total: int) -> str:
    """How much of a device's memory is free, both in bytes.

    >>> free_text(3 * 10**9, 8 * 10**9), free_text(-1, 8 * 10**9)
    ('3.0 GB of 8.0 GB free', '0 B of 8.0 GB free')
    """
    return f"{size(max(0, min(free, total)))} of {size(total)} free"


def header(engine: Engine, page: gr.Blocks) -> None:
    """The top line of the page; the devices are looked for once the first page is open."""

    def free(_: object = None) -> str:  # Gradio passes what the page sent: nothing
        device = engine.device()
        return free_text(engine.pool.spare(device.kind), device.total)

    now = memory()
    bar = gr.HTML(
        header_html(free_text(now.free, now.total)),
        elem_id="mm-header",
        apply_default_css=False,
        js_on_load=asset("header.js"),
        server_functions=[free],
    )

    def found() -> str:
        hardware = engine.hardware()
        return header_html(free(), hardware)

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
