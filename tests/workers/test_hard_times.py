"""What befalls a model in memory: its file goes or shrinks, memory runs out. The app lives, others do not notice."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from multimodel.engine import Engine
from multimodel.errors import NotEnoughMemory, WorkerCrashed
from multimodel.settings import Settings
from multimodel.types import LoadOptions, Message, ModelId, ModelSpec, SamplingParams, Snapshot
from multimodel.workers.client import Worker
from multimodel.workers.protocol import error_frame

from ..support import ROOT, eventually, needs, tiny_llama

pytestmark = [
    needs("llama_cpp", "gguf", "torch", "transformers"),
    pytest.mark.skipif(sys.platform != "linux", reason="needs limits on another process"),
]

ASK = [Message("user", "hello there")]
RUNTIMES = ["gguf", "transformers"]


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(Settings()) as made:
        yield made


@pytest.fixture
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ModelId, Path]:
    """A model of one's own, and the file its weights are in."""
    if request.param == "gguf":
        file = shutil.copy(request.getfixturevalue("tiny_gguf_file"), tmp_path / "own.gguf")
        return ModelId("gguf", str(file)), Path(file)
    folder = shutil.copytree(request.getfixturevalue("tiny_folder"), tmp_path / "own")
    return ModelId("transformers", str(folder)), folder / "model.safetensors"


def ask(engine: Engine, model: ModelId | ModelSpec, **params: int) -> Snapshot:
    *_, last = engine.ask(model, ASK, SamplingParams(**{"max_tokens": 12, "temperature": 0, **params}))
    return last


@pytest.mark.parametrize("model", RUNTIMES, indirect=True)
def test_a_file_that_is_deleted_while_its_model_is_loaded_is_not_missed(
    engine: Engine, model: tuple[ModelId, Path]
) -> None:
    id, file = model
    before = ask(engine, id)
    assert before.text and not before.error
    file.unlink()
    again = ask(engine, id)
    assert (again.text, again.error) == (before.text, None)


@pytest.mark.parametrize("model", RUNTIMES, indirect=True)
def test_a_file_that_shrinks_under_its_model_ends_this_model_alone(engine: Engine, model: tuple[ModelId, Path]) -> None:
    id, file = model
    other = ModelId("echo", "any")
    before, whole = ask(engine, id), file.read_bytes()
    with file.open("rb+") as opened:
        opened.truncate(64)
    hurt = ask(engine, id)
    if hurt.error:  # else the engine had brought all of it into memory
        assert isinstance(hurt.error, WorkerCrashed) and hurt.error.hint
    else:
        assert hurt.text == before.text
    assert ask(engine, other).text == "hello there"
    file.write_bytes(whole)
    engine.unload(id)
    assert ask(engine, id).text == before.text


def limit(worker: Worker, room: int) -> None:
    """Let the process take so many bytes of addresses beyond what it has."""
    size = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (size + room, resource.RLIM_INFINITY))


@pytest.mark.parametrize(("runtime", "fixture"), [("llama", "tiny_gguf_file"), ("torch", "tiny_folder")])
def test_memory_that_runs_out_while_loading_is_told(runtime: str, fixture: str, request: pytest.FixtureRequest) -> None:
    worker = Worker("tiny", threads=1)
    try:
        limit(worker, 8 << 20)
        with pytest.raises(NotEnoughMemory) as caught:
            for _ in worker.load(runtime, request.getfixturevalue(fixture), LoadOptions()):
                pass
        assert "\n" not in str(caught.value) and "Close other models" in caught.value.hint
    finally:
        worker.close()


WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
import psutil
from multimodel.errors import NotEnoughMemory
from multimodel.workers.llama_native import Model
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms,) * 2)
try:
    Model(Path(sys.argv[1]), 0, lambda done: None)
except NotEnoughMemory as error:
    print(error, error.hint)
"""


def test_a_gguf_file_without_room_for_it_is_not_called_damaged(tiny_gguf_file: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_ROOM, str(tiny_gguf_file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(f"There is no room for {tiny_gguf_file.name}: ")
    assert "Close other models" in done.stdout and "ownload" not in done.stdout


def test_a_library_that_finds_no_room_is_not_called_missing() -> None:
    from multimodel.workers.torch_load import _own_errors

    for error in (
        ImportError("libx.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
    ):
        with pytest.raises(type(error)) as caught, _own_errors("The model", Path("own")):
            raise error
        assert error_frame(None, caught.value)["type"] == "NotEnoughMemory"


@pytest.mark.parametrize(
    ("dtype", "words", "room"),
    [("float32", 40_000, 1 << 20), ("bfloat16", 300, 0)],  # oneDNN computes the latter, and says it in its own words
)
def test_memory_that_runs_out_while_answering_ends_the_process_and_the_next_question_starts_a_new_one(
    engine: Engine, tmp_path: Path, dtype: str, words: int, room: int
) -> None:
    folder = tiny_llama(tmp_path / "long", context=1 << 20)
    spec = ModelSpec(ModelId("transformers", str(folder)), LoadOptions(context_length=1 << 20, dtype=dtype))
    before = ask(engine, spec)
    worker = engine.pool.place(spec).worker
    assert worker
    limit(worker, room)
    *_, hurt = engine.ask(spec, [Message("user", "word " * words)], SamplingParams(max_tokens=4))
    assert isinstance(hurt.error, NotEnoughMemory) and "Close other models" in hurt.error.hint
    after = ask(engine, spec)
    assert (after.text, after.error) == (before.text, None)
    eventually(lambda: not psutil.pid_exists(worker.pid))
