"""Who is loaded, who leaves for whom, and who is refused; with processes that only pretend, and with real ones."""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from multimodel import Engine, Settings, pool
from multimodel.board import Board
from multimodel.errors import NotEnoughMemory, TooLarge, WorkerCrashed
from multimodel.hardware import Device, memory
from multimodel.memory import MemoryPlan, Request, Target, Term, target_of
from multimodel.pool import Place, Pool
from multimodel.settings import PerformanceSettings
from multimodel.types import Chunk, LoadOptions, Message, ModelId, ModelSpec, SamplingParams, Stage
from multimodel.workers.protocol import Facts, Status

from .support import eventually, needs

GB = 10**9
HERE = Target()
MARGIN = 64 << 20  # bytes: what a plan of this size may be off by, which must be free beside it
HELLO = [Message("user", "hello there")]
SHORT = SamplingParams(max_tokens=4)
native = [needs("llama_cpp", "gguf", "torch"), pytest.mark.skipif(sys.platform == "win32", reason="needs signals")]


class Process:
    """A worker that does nothing; `taken` bytes of the machine are its own."""

    def __init__(self, name: str, *, threads: int) -> None:
        self.name = name
        self.alive = True
        self.taken = 0
        self.facts: Facts | None = None

    def memory(self) -> int:
        return self.taken if self.alive else 0

    own_memory = memory

    def status(self) -> Status:
        return Status(answering=0, waiting=0, threads=1, cached_tokens=5)

    def close(self) -> None:
        self.alive = False


class Machine:
    """A pool on a machine of so many bytes, whose clock is set by hand."""

    def __init__(self, total: int, idle_after: float | None = None) -> None:
        self.total = total
        self.now = 0.0
        self.processes: list[Process] = []
        self.pool = Pool(device=self.device, idle_after=idle_after, clock=lambda: self.now)

    def device(self, name: str) -> Device:
        if name == "cuda":
            return Device("cuda", "card", 20 * GB, 20 * GB, "bfloat16", "")
        free = self.total - sum(process.memory() for process in self.processes)
        return Device("cpu", "test", self.total, free, "float32", "")

    def process(self, name: str, *, threads: int, more: Mapping[str, str] | None = None) -> Process:
        self.processes.append(Process(name, threads=threads))
        return self.processes[-1]

    def place(self, name: str) -> Place:
        return self.pool.place(ModelSpec(ModelId("gguf", name)))

    def load(self, name: str, size: int, own: float = 1.0, *, anyway: bool = False, card: bool = False) -> None:
        """One answer of a model of this size, of which a share is its own and the rest mapped from a file."""
        target = target_of(self.device("cuda" if card else "cpu"))
        with self.place(name).hold(anyway):
            list(self.place(name).ready(lambda: self.bring_in(name, size, own, target)))
        self.now += 1

    def bring_in(self, name: str, size: int, own: float = 1.0, target: Target = HERE) -> Generator[Chunk, None, Any]:
        self.place(name).make_room(plan(name, size, target))
        process: Any = self.place(name).start()
        yield Chunk(stage=Stage("loading"))
        process.taken = int(own * size)
        process.facts = Facts(512, "cpu", "F32", 1, "own", process.taken)
        return process

    def here(self) -> set[str]:
        return {resident.spec.id.name for resident in self.pool.residents()}


def plan(name: str, size: int, target: Target = HERE) -> MemoryPlan:
    terms = (Term("weights", size, "exact", "test"),)
    return MemoryPlan(model=f"gguf:{name}", request=Request(target=target), terms=terms)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(10 * GB)
    monkeypatch.setattr(pool, "Worker", made.process)
    return made


def test_however_many_ask_it_is_loaded_once(machine: Machine) -> None:
    for _ in range(3):
        machine.load("a", GB)
    assert len(machine.processes) == 1


def test_the_least_recently_used_leaves_first(machine: Machine) -> None:
    for name in ("a", "b", "c", "a"):
        machine.load(name, 3 * GB)
    machine.load("d", 3 * GB)
    assert machine.here() == {"a", "c", "d"}
    machine.load("e", 3 * GB)
    assert machine.here() == {"a", "d", "e"}


def test_no_more_leave_than_must(machine: Machine) -> None:
    for name in ("a", "b", "c"):
        machine.load(name, 3 * GB)
    machine.load("d", 5 * GB)
    assert machine.here() == {"c", "d"}


def test_one_that_answers_never_leaves(machine: Machine) -> None:
    machine.load("a", 4 * GB)
    machine.load("b", 4 * GB)
    with machine.place("a").hold():
        machine.load("c", 4 * GB)
        assert machine.here() == {"a", "c"}
        with pytest.raises(TooLarge), machine.place("c").hold():
            machine.load("d", 4 * GB)
        assert machine.here() == {"a", "c"}


def test_one_that_is_on_its_way_never_leaves(machine: Machine) -> None:
    with machine.place("a").hold():
        coming = machine.place("a").ready(lambda: machine.bring_in("a", 6 * GB))
        next(coming)
        with pytest.raises(TooLarge):
            machine.load("b", 6 * GB)
        list(coming)
    assert machine.here() == {"a"}


def test_what_cannot_fit_is_refused_with_the_figures_and_nobody_leaves(machine: Machine) -> None:
    machine.load("small", 2 * GB)
    with machine.place("busy").hold():
        machine.load("busy", 3 * GB)
        with pytest.raises(TooLarge) as caught:
            machine.load("huge", 9 * GB)
    assert str(caught.value) == (
        "gguf:huge takes 9.2 GB of memory, 5.0 GB is free. "
        "Unloading gguf:small (2.0 GB) would free 2.0 GB, which is not enough. gguf:busy (3.0 GB) is in use."
    )
    assert caught.value.hint
    assert isinstance(caught.value, NotEnoughMemory)
    assert machine.here() == {"small", "busy"}


def test_what_is_to_be_loaded_anyway_is_and_the_idle_ones_leave(machine: Machine) -> None:
    machine.load("a", 2 * GB)
    machine.load("huge", 11 * GB, anyway=True)
    assert machine.here() == {"huge"}
    machine.pool.close()
    with pytest.raises(TooLarge):
        machine.load("huge", 11 * GB)


def test_mapped_weights_are_not_free_though_the_system_says_so(machine: Machine) -> None:
    machine.load("a", 6 * GB, own=0.1)
    assert machine.device("cpu").free > 9 * GB
    assert machine.pool.spare("cpu") == 4 * GB
    machine.load("b", 5 * GB)
    assert machine.here() == {"b"}


def test_a_model_that_took_more_than_was_planned_counts_as_it_is(machine: Machine) -> None:
    machine.load("a", 4 * GB)
    machine.processes[0].taken = 7 * GB
    assert machine.pool.spare("cpu") == 3 * GB
    machine.load("b", 5 * GB)
    assert machine.here() == {"b"}


def test_what_is_left_is_measured_to_the_byte(machine: Machine) -> None:
    machine.load("a", 10 * GB - MARGIN * 4)
    with machine.place("a").hold():
        machine.load("b", 3 * MARGIN)
        machine.pool.unload(machine.place("b").key)
        with pytest.raises(TooLarge):
            machine.load("b", 3 * MARGIN + 1)


def test_a_gpu_has_a_memory_of_its_own(machine: Machine) -> None:
    machine.load("main", 9 * GB)
    machine.load("a", 9 * GB, own=0.0, card=True)
    assert machine.here() == {"main", "a"}
    assert machine.pool.spare("cuda") == 11 * GB  # its free memory is that before our models came
    machine.load("b", 9 * GB, own=0.0, card=True)
    machine.load("c", 9 * GB, own=0.0, card=True)
    assert machine.here() == {"main", "b", "c"}


def test_idle_models_leave_and_those_in_use_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(10 * GB, idle_after=900)
    monkeypatch.setattr(pool, "Worker", machine.process)
    monkeypatch.setattr(machine.pool, "watch", lambda: None)
    assert machine.pool.sweep() is None
    machine.load("a", GB)  # until 0
    machine.now = 600
    machine.load("b", GB)
    with machine.place("b").hold():
        machine.now = 899
        assert machine.pool.sweep() == pytest.approx(1)
        assert machine.here() == {"a", "b"}
        machine.now = 5000
        machine.pool.sweep()
        assert machine.here() == {"b"}
    assert machine.pool.sweep() == pytest.approx(900)
    machine.now = 5900
    assert machine.pool.sweep() is None
    assert machine.here() == set()
    assert not any(process.alive for process in machine.processes)


def test_idle_models_leave_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(10 * GB)
    machine.pool = Pool(device=machine.device, idle_after=0.05)
    monkeypatch.setattr(pool, "Worker", machine.process)
    for _ in range(2):  # the second time after nobody was left to watch
        machine.load("a", GB)
        eventually(lambda: machine.here() == set())
        eventually(lambda: machine.pool._watch is None)


def test_without_a_time_they_stay(machine: Machine) -> None:
    machine.load("a", GB)
    machine.now = 1e9
    assert machine.pool.sweep() is None
    assert machine.here() == {"a"}


def test_the_setting_is_in_minutes() -> None:
    for minutes, seconds in ((15.0, 900.0), (0.0, None)):
        with Engine(Settings(performance=PerformanceSettings(idle_minutes=minutes))) as engine:
            assert engine.pool._idle_after == seconds


def test_unloading_by_hand_ends_one_even_while_it_answers(machine: Machine) -> None:
    machine.load("a", GB)
    machine.load("b", GB)
    with machine.place("a").hold():
        machine.pool.unload(machine.place("a").key)
        machine.pool.unload("nobody")
    assert machine.here() == {"b"}
    assert [process.alive for process in machine.processes] == [False, True]


def test_a_model_that_died_takes_nothing(machine: Machine) -> None:
    machine.load("a", 9 * GB)
    machine.processes[0].alive = False
    assert machine.here() == set()
    machine.load("b", 9 * GB)
    assert machine.here() == {"b"}


def test_what_is_shown_of_each(machine: Machine) -> None:
    machine.load("a", 2 * GB, own=0.5)
    machine.now = 61
    (idle,) = machine.pool.residents()
    assert (idle.state, idle.predicted, idle.measured, idle.idle) == ("idle", 2 * GB, GB, 61)
    assert idle.status and idle.status.cached_tokens == 5
    with machine.place("a").hold():
        assert [resident.state for resident in machine.pool.residents()] == ["answering"]
    with machine.place("b").hold():
        coming = machine.place("b").ready(lambda: machine.bring_in("b", GB))
        next(coming)
        loading = machine.pool.residents()[1]
        assert (loading.state, loading.predicted, loading.facts, loading.status) == ("loading", GB, None, None)
        coming.close()
    assert machine.here() == {"a"}


def test_a_process_that_is_too_busy_to_say_keeps_what_it_said_last(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.load("a", GB)
    (said,) = machine.pool.residents()
    monkeypatch.setattr(Process, "status", lambda self: None)
    assert machine.pool.residents()[0].status == said.status


# which number format


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


def large_folder(folder: Path) -> Path:
    """A transformers model of 1.9 billion parameters by its headers; the file behind them is a hole."""
    width, layers, vocabulary, wide = 2048, 24, 3072, 8192
    one = {f"self_attn.{name}_proj": (width, width) for name in "qkvo"}
    one |= {"mlp.gate_proj": (wide, width), "mlp.up_proj": (wide, width), "mlp.down_proj": (width, wide)}
    shapes = {f"model.layers.{i}.{name}.weight": shape for i in range(layers) for name, shape in one.items()}
    shapes["model.embed_tokens.weight"] = (vocabulary, width)
    rows, end = dict[str, Any](), 0
    for name, (high, across) in shapes.items():
        start, end = end, end + 2 * high * across
        rows[name] = {"dtype": "BF16", "shape": [high, across], "data_offsets": [start, end]}
    header = json.dumps(rows).encode()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": layers}
    config |= {"hidden_size": width, "intermediate_size": wide, "num_attention_heads": 16, "vocab_size": vocabulary}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return folder


def planned(engine: Engine, folder: Path, free: float) -> tuple[MemoryPlan, TooLarge | None]:
    """The plan of a model here with so many bytes free, and why it is refused."""
    engine.pool.device = lambda name: replace(_device(free), total=32 * GB)
    spec = ModelSpec(ModelId("transformers", str(folder)))
    place, found = engine.pool.place(spec), engine.pool.plan(folder, spec)
    try:
        place.make_room(found)
    except TooLarge as refusal:
        return found, refusal
    finally:
        place.vacate()
    return found, None


def test_more_free_memory_never_refuses_a_model(tmp_path: Path, engine: Engine) -> None:
    """The format is chosen by the very test that lets the model in, also where earlier loads correct the plans."""
    folder = large_folder(tmp_path / "large")
    for beyond in (0, 300_000_000):
        if beyond:
            plan, _ = planned(engine, folder, 8 * GB)
            engine.pool.learn(plan, plan.total + beyond)
        sweep = [planned(engine, folder, free / 10 * GB) for free in range(15, 100)]
        admitted = [plan.dtype for plan, refusal in sweep if not refusal]
        refused = [plan.dtype for plan, refusal in sweep if refusal]
        assert [bool(refusal) for _, refusal in sweep] == sorted((bool(r) for _, r in sweep), reverse=True)
        assert list(dict.fromkeys(admitted)) == ["int8", "bfloat16", "float32"]
        assert set(refused) == {"int8"}


def test_a_refusal_names_the_format_that_fits_and_figures_that_differ(tmp_path: Path, engine: Engine) -> None:
    folder = large_folder(tmp_path / "large")
    found, refusal = planned(engine, folder, 2 * GB)
    assert refusal and refusal.hint == (
        "Close other programs: this machine has 32.0 GB in all. "
        "Set Number format (dtype) to int4: 4 bits, which answer a little worse."
    )
    _, refusal = planned(engine, folder, found.safe_total - 1_000_000)
    figures = re.search(r"takes ([\d.]+) GB of memory, ([\d.]+) GB is free", str(refusal))
    assert figures and float(figures[1]) > float(figures[2])


def test_idle_models_leave_for_the_better_format(tmp_path: Path, engine: Engine) -> None:
    folder = large_folder(tmp_path / "large")
    other = engine.pool.place(ModelSpec(ModelId("echo", "other")))
    other.plan, other._load = plan("other", 6 * GB), pool._Load(iter(()))  # type: ignore[arg-type]
    found, refusal = planned(engine, folder, 9 * GB)
    assert (found.dtype, refusal, other.plan) == ("float32", None, None)


# with real processes


def answer(engine: Engine, model: ModelId | ModelSpec) -> str:
    *_, last = engine.ask(model, HELLO, SHORT)
    if last.error:
        raise last.error
    return last.text


def pids(engine: Engine) -> list[int]:
    places = engine.pool._places.values()
    return [place.worker.pid for place in places if place.worker]


@pytest.fixture
def tiny(tiny_gguf_file: Path) -> ModelId:
    return ModelId("gguf", str(tiny_gguf_file))


class TestReal:
    """One model in a process of its own, or several."""

    pytestmark = native

    def test_unloading_ends_the_process(self, engine: Engine, tiny: ModelId) -> None:
        assert answer(engine, tiny)
        (pid,) = pids(engine)
        (resident,) = engine.pool.residents()
        assert resident.measured > 10_000_000
        engine.pool.unload(resident.key)
        assert not psutil.pid_exists(pid)
        assert engine.pool.residents() == ()
        assert answer(engine, tiny)

    def test_two_ways_to_load_one_model_are_two_loaded_models(self, engine: Engine, tiny: ModelId) -> None:
        short = ModelSpec(tiny, LoadOptions(context_length=256))
        as_it_is = ModelSpec(tiny, LoadOptions(context_length=engine.settings.models.context_length))
        assert answer(engine, tiny) == answer(engine, short) == answer(engine, as_it_is)
        lengths = [resident.facts.context_length for resident in engine.pool.residents() if resident.facts]
        assert lengths == [512, 256]
        engine.unload(short)
        assert len(pids(engine)) == 1

    def test_an_idle_one_makes_room_for_another(
        self, engine: Engine, tiny: ModelId, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer(engine, tiny)
        (first,) = pids(engine)
        other = ModelSpec(tiny, LoadOptions(context_length=256))
        too_little = engine.pool.plan(Path(tiny.name), other).safe_total - 1
        monkeypatch.setattr(engine.pool, "device", lambda name: _device(too_little))
        assert answer(engine, other)
        (second,) = pids(engine)
        assert first != second
        assert not psutil.pid_exists(first)

    def test_a_refused_one_is_loaded_anyway_and_the_prompt_is_not_lost(
        self, engine: Engine, tiny: ModelId, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(engine.pool, "device", lambda name: _device(0))
        board = Board(engine, [tiny])
        board.send("hello there")
        eventually(lambda: not board.active())
        (column,) = board.columns()
        assert isinstance(column.turns[0].answer.error, TooLarge)
        board.regenerate(column.key, anyway=True)
        eventually(lambda: not board.active())
        (column,) = board.columns()
        assert [(turn.prompt, turn.answer.error) for turn in column.turns] == [("hello there", None)]
        assert column.turns[0].answer.text
        board.send("and again")  # it is loaded now, so nothing is refused
        eventually(lambda: not board.active())
        assert board.columns()[0].turns[1].answer.text

    def test_unloading_while_it_loads_is_said_to_who_waits(self, engine: Engine, tiny: ModelId) -> None:
        snapshots = engine.ask(tiny, HELLO, SHORT)
        next(s for s in snapshots if any(resident.measured for resident in engine.pool.residents()))
        (resident,) = engine.pool.residents()
        assert resident.state == "loading"
        engine.pool.unload(resident.key)
        *_, last = snapshots
        assert isinstance(last.error, WorkerCrashed)
        assert engine.pool.residents() == ()

    def test_what_it_took_is_learnt_once(self, engine: Engine, tiny: ModelId) -> None:
        for _ in range(2):
            answer(engine, tiny)
        (load,) = engine.estimator._calibration.loads
        (resident,) = engine.pool.residents()
        assert (load.model, load.predicted) == (tiny.name, resident.predicted)
        assert load.measured > 10_000_000
        assert (
            resident.facts
            and engine.estimator.planned(Path(tiny.name), resident.spec, engine.device()).request.sequences
            == resident.facts.slots
        )

    def test_loading_and_unloading_gives_every_byte_back(self, engine: Engine, tiny: ModelId) -> None:
        def cycle() -> int:
            answer(engine, tiny)
            engine.unload(tiny)
            gc.collect()
            return int(psutil.Process().memory_info().rss)

        first = cycle()
        for _ in range(5):
            last = cycle()
        assert last - first <= 20 << 20


def _device(free: float) -> Device:
    return Device("cpu", "test", memory().total, int(free), "float32", "")
