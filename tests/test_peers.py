"""Three servers on loopback, asked side by side: llama_cpp.server and `transformers serve` with the built-in model, and
one that fails."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from multimodel.board import Board
from multimodel.engine import Engine
from multimodel.errors import ServerFailure
from multimodel.settings import ApiSettings, ChatSettings, Endpoint, Settings
from multimodel.types import ModelId, Snapshot

from .faults import FaultServer
from .serving import Server, app, chromium, environment, free_port, serving
from .support import GUIDE_FOLDER, needs, needs_browser

pytestmark = [pytest.mark.slow, needs("llama_cpp", "starlette_context", "uvicorn", "fastapi", "gguf")]

READY = r"Uvicorn running on (http://\S+)"
PROMPT = "What is a token?"
PATIENCE = 120.0


@pytest.fixture
def no_leaks() -> None:
    """The servers live as long as this module; `serving` sees to their ends."""


@pytest.fixture(scope="module")
def guide_f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model in F16: with AMX, llama-cpp-python 0.3.36 crashes on quantised weights, and its server has no
    option against that."""
    from guide.convert import save_gguf

    path = tmp_path_factory.mktemp("guide") / "guide-f16.gguf"
    save_gguf(GUIDE_FOLDER, path, quantise=False)
    return path


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, guide_f16: Path) -> Iterator[Server]:
    """`python -m llama_cpp.server`"""
    folder, port = tmp_path_factory.mktemp("llama"), str(free_port())
    options = {
        "model": str(guide_f16),
        "model_alias": "guide",
        "n_ctx": "1024",
        "n_threads": "1",
        "n_threads_batch": "1",
    }
    command = [sys.executable, "-m", "llama_cpp.server", "--host", "127.0.0.1", "--port", port]
    for name, value in options.items():
        command += [f"--{name}", value]
    with serving(command, folder, environment(folder), READY) as server:
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`transformers serve`"""
    folder, port = tmp_path_factory.mktemp("serve"), str(free_port())
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(GUIDE_FOLDER)]
    command += ["--host", "127.0.0.1", "--port", port, "--device", "cpu", "--dtype", "float32"]
    with serving(command, folder, environment(folder), READY) as server:
        yield server


@pytest.fixture(scope="module")
def faults() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def endpoints(llama: Server, served: Server, faults: FaultServer) -> dict[str, str]:
    """Their addresses, by the names they are given in the settings."""
    return {"llama": f"{llama.url}/v1", "serve": f"{served.url}/v1", "faulty": faults.url("500")}


MODELS = ("llama:guide", f"serve:{GUIDE_FOLDER}", "faulty:any")


@pytest.fixture
def engine(endpoints: dict[str, str]) -> Iterator[Engine]:
    named = tuple(Endpoint(name=name, base_url=url) for name, url in endpoints.items())
    settings = Settings(api=ApiSettings(endpoints=named, retries=0), chat=ChatSettings(columns=MODELS))
    with Engine(settings) as engine:
        yield engine


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answers(board: Board) -> list[Snapshot]:
    """The newest answers of all columns, once all have ended."""
    until(lambda: not board.active())
    return [column.turns[-1].answer for column in board.columns()]


def test_three_servers_side_by_side(engine: Engine) -> None:
    board = Board(engine, [ModelId.parse(model) for model in MODELS])
    board.send(PROMPT)
    fast, slow, failed = answers(board)
    for answer in (fast, slow):
        assert answer.error is None
        assert answer.finish_reason == "stop"
        assert answer.text
        assert answer.timing.ttft is not None
        assert answer.usage is not None
        assert answer.timing.tokens_per_second(answer.usage.output_tokens)
    assert fast.text == slow.text  # one model, two engines, no sampling
    assert slow.usage and not slow.usage.estimated
    assert fast.usage and fast.usage.estimated  # that server sends none with a stream
    assert isinstance(failed.error, ServerFailure)
    assert failed.finish_reason == "error"


def test_the_usage_is_what_the_server_counted(engine: Engine) -> None:
    """Held against the tokenizer of the model itself."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(GUIDE_FOLDER / "tokenizer.json"))
    board = Board(engine, [ModelId.parse(MODELS[1])])
    board.send(PROMPT)
    (answer,) = answers(board)
    assert answer.usage
    counted = len(tokenizer.encode(answer.text, add_special_tokens=False).ids)
    assert abs(answer.usage.output_tokens - counted) <= 1  # with or without the end
    assert answer.usage.input_tokens > len(tokenizer.encode(PROMPT, add_special_tokens=False).ids)


def test_a_conversation_goes_on(engine: Engine) -> None:
    board = Board(engine, [ModelId.parse(model) for model in MODELS])
    for turn, prompt in enumerate((PROMPT, "Hello!"), 1):
        board.send(prompt)
        fast, slow, failed = answers(board)
        assert all(len(column.turns) == turn for column in board.columns())
        assert fast.text
        assert slow.text
        assert failed.error


def test_stop_closes_the_connection(engine: Engine, faults: FaultServer, endpoints: dict[str, str]) -> None:
    """A server that has begun to answer learns that nobody listens any more; the others are not disturbed."""
    named = [Endpoint(name=name, base_url=url) for name, url in endpoints.items() if name != "faulty"]
    stalling = Endpoint(name="stalling", base_url=faults.url("stall"))
    with Engine(Settings(api=ApiSettings(endpoints=(*named, stalling), retries=0))) as engine:
        board = Board(engine, [ModelId.parse("llama:guide"), ModelId.parse("stalling:any")])
        board.send(PROMPT)
        until(lambda: len(board.spoken()) == 2 or bool(board.columns()[0].turns))
        stalled = board.columns()[1]
        until(lambda: bool((live := board.columns()[1].live) and live.text == "Hello"))
        board.stop(stalled.key)
        assert faults.idle(PATIENCE)
        well, stopped = answers(board)
        assert (stopped.text, stopped.finish_reason) == ("Hello", "stopped")
        assert well.finish_reason == "stop"


def test_a_real_server_is_let_go_too(engine: Engine, llama: Server) -> None:
    process = psutil.Process(llama.process.pid)
    board = Board(engine, [ModelId.parse("llama:guide")])
    board.send("Tell me all you know.")
    until(lambda: bool(board.spoken()) or not board.active())
    board.stop()
    answers(board)
    engine.close()
    until(lambda: not [c for c in process.net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED])


@pytest.mark.browser
@needs_browser
def test_three_servers_in_the_browser(tmp_path: Path, endpoints: dict[str, str]) -> None:
    from .page import FIGURES, visit

    named = [{"name": name, "base_url": url} for name, url in endpoints.items()]
    columns = list(MODELS)
    with (
        app(tmp_path, ENDPOINTS=named, MULTIMODEL_COLUMNS=columns, MULTIMODEL_RETRIES="0") as server,
        chromium() as browser,
    ):
        for chat in visit(browser, server):
            chat.ask(PROMPT)
            chat.finished()
            for index in (0, 1):
                column = chat.columns.nth(index)
                assert FIGURES.search(column.locator(".mm-figures").inner_text().replace("~", ""))
                assert column.get_by_role("alert").count() == 0
            assert chat.answer(0) == chat.answer(1)
            chat.expect(chat.columns.nth(2).get_by_role("alert")).to_be_visible()
