"""What is around the tabs: the header and the theme."""

from __future__ import annotations

from html import escape

import gradio as gr

from multimodel import hardware
from multimodel.settings import Settings

from .format import size

SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
MONO_FONTS = ["ui-monospace", "SF Mono", "Cascadia Code", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]


def chip(settings: Settings) -> str:
    """What the machine is, known without loading any engine."""
    memory = hardware.memory()
    cores = settings.performance.threads or hardware.cores()
    plural = "core" if cores == 1 else "cores"
    text = f"CPU, {cores} {plural}, {size(memory.free)} of {size(memory.total)} free"
    return f'<span class="mm-chip" id="mm-chip" title="The device models run on">{escape(text)}</span>'


def header(settings: Settings) -> None:
    """Name, hardware chip and theme switch."""
    switch = '<button type="button" id="mm-theme" title="Switch between light and dark">Light or dark</button>'
    gr.HTML(
        f'<div class="mm-brand">MultiModel</div><div class="mm-grow"></div>{chip(settings)}{switch}',
        elem_id="mm-header",
        apply_default_css=False,
        js_on_load="element.querySelector('#mm-theme').addEventListener('click', () => window.mmSwitchTheme())",
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
