"""The app: settings, engine, tabs, launch. `python app.py --help` lists the options."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported: the app calls nobody on its own

import gradio as gr
from starlette.middleware import Middleware

from multimodel.boards import Boards
from multimodel.engine import Engine
from multimodel.errors import MultimodelError
from multimodel.finetune.tables import Limits
from multimodel.settings import Settings
from multimodel.web import Guard
from tabs.attached import attached_route
from tabs.batch import BatchTab
from tabs.chat import ChatTab
from tabs.explorer import CHAT, ExplorerTab
from tabs.finetune import FinetuneTab
from tabs.live import live_route
from tabs.page import header, theme
from tabs.system import TAB as SYSTEM
from tabs.system import SystemTab

ASSETS = Path(__file__).resolve().parent / "assets"
STYLES = (
    "style",
    "conversations",
    "cost",
    "explorer",
    "fairlane",
    "finetune",
    "predict",
    "system",
    "habits",
    "votes",
    "batch",
    "saw",
    "parts",
)


def arguments(argv: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """The command line; what it leaves out comes from the settings."""
    parser = argparse.ArgumentParser(prog="python app.py", description="Compare language models side by side.")
    parser.add_argument("--host", default=settings.security.host, help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=settings.security.port, help="port (default: %(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    return parser.parse_args(argv)


def build(engine: Engine, boards: Boards | None = None) -> gr.Blocks:
    """The page. `boards`: where its visitors' conversations are, if they are followed by a server too."""
    boards = boards or Boards(engine)
    page: gr.Blocks
    with gr.Blocks(title="MultiModel", fill_width=True, analytics_enabled=False) as page:
        header(engine, page)
        with gr.Tabs(elem_id="mm-tabs") as tabs:
            chat = ChatTab(engine, boards)
            with gr.Tab("Chat", id=CHAT, elem_id="mm-chat-tab"):
                chat.build(page)
            with gr.Tab("Runs", elem_id="mm-batch-tab"):
                BatchTab(engine, boards).build(page, chat.id)
            with gr.Tab("Explorer", elem_id="mm-explorer-tab"):
                ExplorerTab(engine, boards).build(chat, tabs)
            with gr.Tab("Fine-tune", elem_id="mm-finetune-tab"):
                FinetuneTab(engine).build()
            with gr.Tab(SYSTEM, elem_id="mm-system-tab"):
                SystemTab(engine).build(tabs)
    return page


def serve(page: gr.Blocks, boards: Boards, host: str, port: int, *, browser: bool = False) -> str:
    """Start serving in the background; the address, once the page answers. Raises OSError when the port is taken."""
    settings = boards.settings
    page.queue(max_size=64, default_concurrency_limit=8, api_open=False)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port or None,
        inbrowser=browser,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        show_error=False,
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        max_file_size=Limits().file,
        state_session_capacity=200,
        theme=theme(),
        css_paths=[ASSETS / f"{name}.css" for name in STYLES],
        head_paths=[ASSETS / "head.html"],
        app_kwargs={
            "middleware": [Middleware(Guard, allowed_hosts=settings.security.allowed_hosts)],
            "routes": [live_route(boards, settings.performance.updates_per_second), attached_route(boards)],
        },
    )
    return str(address)


def listening(settings: Settings, host: str, port: int) -> Settings:
    """The settings with the address that the command line gave."""
    security = settings.security.model_copy(update={"host": host, "port": port})
    return settings.model_copy(update={"security": security})


def take_up(engine: Engine) -> None:
    """Go on with the fine-tuning runs that the last end of the app interrupted."""
    try:
        engine.jobs.recover()
    except MultimodelError as error:
        print(f"{error} {error.hint}", file=sys.stderr)


def port_free(host: str, port: int) -> bool:
    """Whether nothing listens there yet; port 0 means any."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app until Ctrl+C; the exit status."""
    try:
        settings = Settings.load()
    except MultimodelError as error:
        print(f"{error} {error.hint}", file=sys.stderr)
        return 2
    options = arguments(argv, settings)
    if not port_free(options.host, options.port):
        print(f"Port {options.port} on {options.host} is in use. Choose another with --port.", file=sys.stderr)
        return 2
    with Engine(listening(settings, options.host, options.port)) as engine:
        boards = Boards(engine)
        page = build(engine, boards)
        address = serve(page, boards, options.host, options.port, browser=not options.no_browser)
        print(f"Running on {address}", flush=True)
        take_up(engine)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop is a Ctrl+C
        with suppress(KeyboardInterrupt):
            Event().wait()
        page.close(verbose=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
