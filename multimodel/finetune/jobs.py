"""Fine-tuning runs as they belong to the server: start, follow, stop, resume, list.

One run per device at a time, the rest in line. A run is its folder: any page, tab, terminal or later app that looks
there sees the same. The app's end lets a run save itself; the next app goes on with it.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

import filelock

from ..compute import Cores
from ..errors import (
    BrokenFile,
    InvalidName,
    InvalidParameter,
    ModelNotFound,
    MultimodelError,
    NotEnoughMemory,
    TrainingError,
    Unexpected,
    WorkerCrashed,
)
from ..settings import Settings
from ..workers.process import reason, spawn
from . import checkpoints, runfolder, sources
from . import data as rows
from .bases import base_folder
from .child import retry
from .control import APP, STOP
from .data import Dataset
from .events import Reader, Writer, fold
from .runfolder import Order
from .store import Store, disk_error
from .types import TrainConfig, TrainUpdate

BEAT = 0.1  # seconds between two looks at a run
CHILD = "multimodel.finetune.child"
PATIENCE = 20.0  # seconds that a run may take to save itself when the app ends
HARMLESS = frozenset(
    {"batch_size", "gradient_accumulation", "gradient_checkpointing", "early_stopping", "checkpoint_steps", "device"}
)
"""Settings that may change in the middle of a run; any other change starts it anew."""
SPLIT = ["--use_fsdp", "--fsdp_version", "2", "--fsdp_state_dict_type", "FULL_STATE_DICT"]


@dataclass(slots=True)
class _Work:
    """A run that this app works on."""

    name: str
    device: str
    thread: Thread | None = None
    process: subprocess.Popen[bytes] | None = None
    closing: Event = field(default_factory=Event)


class Jobs:
    """The runs of one app, in the folder of its models."""

    def __init__(
        self, settings: Settings, cores: Cores | None = None, *, device: Callable[[str], str] = lambda name: name
    ) -> None:
        """`device`: the kind of device that "auto" means; runs for different devices run at the same time."""
        self.store = Store(settings)
        self._settings = settings
        self._cores = cores or Cores(settings.performance.threads or 1)
        self._device = device
        self._line: list[_Work] = []  # in the order in which they came
        self._changed = Condition()  # the line: between the threads of the runs and the pages
        self._views: dict[tuple[str, str], tuple[Reader, TrainUpdate]] = {}  # by name and birth

    def start(self, config: TrainConfig, data: Dataset | None = None) -> str:
        """Put a run in line; returns its name. `data`: rows that a page has read; they are repaired, split and kept.

        Raises InvalidName where the name is no name or taken, DataError where the given rows cannot be trained on,
        TrainingError where the folder cannot be written.
        """
        config = config.merge({"name": self.store.path(config.name).name})
        folder = self.store.runs / config.name
        given = sources.finished(data, config) if data else None
        with self._changed:
            if self.store.taken(config.name):
                raise InvalidName(f"There is already a model or run {config.name!r}.", hint="Choose another name.")
            try:
                folder.mkdir(parents=True)
                kept = rows.save(given, folder / runfolder.DATA) if given else ""
                Order(config, "", str(self.store.folder), kept, datetime.now(UTC).isoformat()).save(folder)
            except FileExistsError:
                raise InvalidName(f"There is already a run {config.name!r}.", hint="Choose another name.") from None
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise disk_error(error, f"The folder {str(self.store.runs)!r}") from error
            for note in given.notes if given else ():
                Writer(folder).log(note)
            self._enqueue(config)
        return config.name

    def launch_command(
        self,
        name: str,
        processes: int,
        *,
        gpus: bool = False,
        split: bool = False,
        machines: int = 1,
        rank: int = 0,
        address: str = "",
    ) -> list[str]:
        """The command that trains a run of this list with several processes, here or on another machine.

        The run needs its rows and its base model in its folder: start it here and stop it, or let it end. With `gpus`
        one process each; without, processes on the processor, which `accelerate launch --cpu` does not start. With
        `split` each holds a part of the model as it trains (FSDP), on GPUs or the processor, as the run was begun. Of
        several `machines`, which all see the run's folder, each has its `rank`; `address` is that of the first one.
        Raises ModelNotFound, TrainingError where the run was never prepared, InvalidParameter.
        """
        folder = self._folder(name)
        if not Order.load(folder).data_hash:
            raise TrainingError(
                f"{name} has not been prepared.", hint="Start it here first; it may be stopped at once."
            )
        if machines > 1 and not (address and 0 <= rank < machines):
            hint = f"Give the address of the first machine, and a rank from 0 to {machines - 1}."
            raise InvalidParameter("Several machines have to find each other.", hint=hint)
        what = ["-m", CHILD, str(folder)]
        if gpus or split:
            how = SPLIT if split else ["--multi_gpu"]
            count = ["--num_processes", str(processes * machines)]
            return ["accelerate", "launch", *how, *count, *_nodes(machines, rank, address), *what]
        meeting = ["--standalone"] if machines == 1 else _rendezvous(machines, rank, address)
        return ["torchrun", *meeting, "--nproc_per_node", str(processes), *what]

    def resume(self, name: str, changes: Mapping[str, Any] | None = None) -> None:
        """Go on with a run that has stopped, failed or was interrupted; from its newest checkpoint.

        `changes`: settings to change. Those that say how memory is used may change in the middle; others start the run
        anew. Raises ModelNotFound, TrainingError, InvalidParameter.
        """
        folder = self._folder(name)
        with self._changed:
            if self._working(name) or runfolder.worked_on(folder):
                raise TrainingError(f"{name} is running.", hint="Stop it first.")
            if self.get(name).phase == "done":
                raise TrainingError(f"{name} is done.", hint="Start a new run under another name.")
            order = Order.load(folder)
            if changes:
                order = self._change(folder, order, changes)
            runfolder.forget(folder)
            self._enqueue(order.config)

    def stop(self, name: str) -> None:
        """Ask a run to stop after its step; the best model so far is kept. One that is in line leaves it."""
        (self._folder(name) / STOP).touch()
        with self._changed:
            self._changed.notify_all()

    def discard(self, name: str) -> None:
        """Remove a run and its checkpoints; a model it saved stays. Raises TrainingError while it runs."""
        folder = self._folder(name)
        with self._changed:
            if self._working(name) or runfolder.worked_on(folder):
                raise TrainingError(f"{name} is running.", hint="Stop it first.")
            self._views.pop((name, _created(folder)), None)
            checkpoints.remove(folder)

    def get(self, name: str) -> TrainUpdate:
        """A run as it stands now. Raises ModelNotFound."""
        folder = self._folder(name)
        one = (name, _created(folder))  # the name may have been another run's before
        with self._changed:
            reader, update = self._views.get(one) or (Reader(folder), TrainUpdate(name))
            update = fold(update, reader.read())
            self._views[one] = (reader, update)
        return self._placed(update)

    def all(self) -> list[TrainUpdate]:
        """Every run, the newest first."""
        found = self.store.runs.glob(f"*/{runfolder.RUN}") if self.store.runs.is_dir() else iter(())
        created = {path.parent.name: _created(path.parent) for path in found}
        return [self.get(name) for name in sorted(created, key=lambda name: created[name], reverse=True)]

    def follow(self, name: str) -> Generator[TrainUpdate]:
        """The run as it goes, until it has ended; the same update again every quarter of a second while nothing is new.

        The first has all points so far in `new`. Leaving does not stop the run. Raises ModelNotFound.
        """
        reader, update = Reader(self._folder(name)), TrainUpdate(name)
        shown: TrainUpdate | None = None
        beat = 0.0
        while True:
            working = self._working(name)  # before reading: what it wrote last is then read
            update = fold(update, reader.read())
            now = self._placed(update)
            if now != shown or time.monotonic() - beat > 2.5 * BEAT:
                shown, beat = now, time.monotonic()
                yield now
            if update.ended and not working:
                return
            if not working and not runfolder.worked_on(reader.folder):
                update = fold(update, reader.read())
                yield self._placed(update if update.ended else _lost(update))
                return
            time.sleep(BEAT)

    def recover(self) -> list[str]:
        """After a start of the app: go on with runs that the end of the last one interrupted; returns their names.

        A run whose process was killed is marked interrupted and waits for a person: what killed it may do so again.
        """
        names = []
        for update in reversed(self.all()):
            folder = self._folder(update.run)
            if update.phase == "interrupted" and _by_app(folder):
                self.resume(update.run)
            elif update.ended:
                continue
            elif runfolder.worked_on(folder):  # a process of the last app still saves
                Thread(target=self._adopt, args=(update.run,), daemon=True).start()
            elif update.phase == "queued":
                self.resume(update.run)
            else:
                Writer(folder).end("interrupted", LOST)
                continue
            names.append(update.run)
        return names

    def close(self) -> None:
        """The app ends: runs save themselves and are interrupted; those in line stay there. Safe to call twice."""
        with self._changed:
            line = list(self._line)
            for work in line:
                work.closing.set()
                if work.process and work.process.stdin:
                    with suppress(OSError):
                        work.process.stdin.close()
            self._changed.notify_all()
        for work in line:
            if work.thread:
                work.thread.join(PATIENCE)
            if work.process and work.process.poll() is None:
                work.process.kill()
                if work.thread:
                    work.thread.join(PATIENCE)

    # --- inside ---

    def _folder(self, name: str) -> Path:
        folder = self.store.runs / self.store.path(name).name
        if not (folder / runfolder.RUN).exists():
            raise ModelNotFound(f"There is no run {name!r}.", hint="It may have been removed.")
        return folder

    def _working(self, name: str) -> bool:
        with self._changed:
            return any(work.name == name for work in self._line)

    def _placed(self, update: TrainUpdate) -> TrainUpdate:
        """With its place in line."""
        if update.phase != "queued":
            return update
        with self._changed:
            mine = next((work for work in self._line if work.name == update.run), None)
            before = [work for work in self._line if mine and work.device == mine.device]
            return replace(update, position=before.index(mine) or None if mine else None)

    def _enqueue(self, config: TrainConfig) -> None:
        """The caller holds the condition."""
        Writer(self.store.runs / config.name).phase("queued", "waiting for the device")
        work = _Work(config.name, self._device(config.device))
        self._line.append(work)
        work.thread = Thread(target=self._work, args=(work,), name=f"run-{config.name}", daemon=True)
        work.thread.start()

    def _change(self, folder: Path, order: Order, changes: Mapping[str, Any]) -> Order:
        """The order with other settings; what no longer fits is removed."""
        changed = replace(order, config=order.config.merge({**changes, "name": order.config.name}))
        if not set(changes) <= HARMLESS:
            for path in checkpoints.all_of(folder):
                checkpoints.remove(path)
            runfolder.forget_adaptation(folder)
            for name in (runfolder.PLAN, runfolder.TRAINED):
                (folder / name).unlink(missing_ok=True)
        changed.save(folder)
        return changed

    def _work(self, work: _Work) -> None:
        """One try of a run, in its thread."""
        folder = self.store.runs / work.name
        try:
            with self._turn(work, folder) as mine:
                if mine:
                    self._prepare(work, folder)
                    self._train(work, folder)
        except MultimodelError as error:
            Writer(folder).end("failed", error=error)
        except OSError as error:
            with suppress(OSError):
                Writer(folder).end("failed", error=disk_error(error, f"The run {work.name}"))
        except Exception as error:  # a bug of ours is shown where the run is
            own = Unexpected(f"{type(error).__name__}: {error}", hint="Try again; if it stays, report it.")
            Writer(folder).end("failed", error=own)
        finally:
            with self._changed:
                self._line.remove(work)
                self._changed.notify_all()

    @contextmanager
    def _turn(self, work: _Work, folder: Path) -> Generator[bool]:
        """Wait for the device; False where the run was stopped, or the app ended, before its turn."""
        lock = filelock.FileLock(self.store.runs / f".{work.device}.lock")  # other apps train here too
        while not work.closing.is_set():
            if (folder / STOP).exists():
                Writer(folder).end("stopped", "Taken out of the line.")
                break
            if self._first(work):
                with suppress(filelock.Timeout):
                    lock.acquire(timeout=BEAT)
                    break
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def _first(self, work: _Work) -> bool:
        """Whether the work is the first for its device; waits a little where not."""
        with self._changed:
            if next(other for other in self._line if other.device == work.device) is work:
                return True
            self._changed.wait(BEAT)
            return False

    def _prepare(self, work: _Work, folder: Path) -> None:
        """Bring rows and base model to this machine, where they are not yet."""
        order, writer = Order.load(folder), Writer(folder)
        if not order.data_hash:
            writer.phase("preparing", "reading the data")
            data = sources.prepared(order.config, self._settings)
            order = replace(order, data_hash=rows.save(data, folder / runfolder.DATA))
            for note in data.notes:
                writer.log(note)
        writer.phase("preparing", "finding the base model")
        with closing(base_folder(order.config.base, self._settings)) as steps:
            while True:
                try:
                    detail, fraction = next(steps)
                except StopIteration as end:
                    order = replace(order, base=str(end.value))
                    break
                self._check_asked(work, folder)
                writer.phase("preparing", detail, fraction)
        order.save(folder)

    def _check_asked(self, work: _Work, folder: Path) -> None:
        if work.closing.is_set() or (folder / STOP).exists():
            raise TrainingError("The run was stopped before training began.", hint="Resume it to go on.")

    def _train(self, work: _Work, folder: Path) -> None:
        """Start the process that trains, tell it its share of the cores, and wait for it."""
        with (folder / runfolder.STDERR).open("ab") as errors:
            process = spawn(
                CHILD,
                str(folder),
                APP,
                threads=self._cores.total,
                output=subprocess.DEVNULL,
                errors=errors,
                more=self._settings.tracking.environment(),
            )
        with self._changed:
            work.process = process
        if work.closing.is_set() and process.stdin:
            process.stdin.close()
        with self._cores.share(lambda count: _tell(process, count)):
            code = process.wait()
        with suppress(OSError):
            if process.stdin:
                process.stdin.close()
        update = fold(TrainUpdate(work.name), Reader(folder).read())
        if not update.ended:
            phase = "interrupted" if work.closing.is_set() else "failed"
            again = retry(NotEnoughMemory(LOST), folder) if code == -signal.SIGKILL and phase == "failed" else {}
            Writer(folder).end(phase, LOST, _killed(work.name, code, folder), retry=again)

    def _adopt(self, name: str) -> None:
        """Wait for a process of the last app, then go on with its run."""
        for _ in self.follow(name):
            pass
        if self.get(name).phase == "interrupted":
            with suppress(MultimodelError):
                self.resume(name)


def _nodes(machines: int, rank: int, address: str) -> list[str]:
    """How accelerate is told of several machines."""
    if machines == 1:
        return []
    host, port = _host(address)
    where = ["--main_process_ip", host, "--main_process_port", port]
    return ["--num_machines", str(machines), "--machine_rank", str(rank), *where]


def _rendezvous(machines: int, rank: int, address: str) -> list[str]:
    """How torchrun is."""
    host, port = _host(address)
    return ["--nnodes", str(machines), "--node_rank", str(rank), "--master_addr", host, "--master_port", port]


def _host(address: str) -> tuple[str, str]:
    """(host, port) of "host" or "host:port"; the port is PyTorch's usual one where none is given."""
    host, _, port = address.partition(":")
    return host, port or "29500"


LOST = "Its process ended; what was done up to the last checkpoint is kept."


def _created(folder: Path) -> str:
    try:
        return Order.load(folder).created
    except BrokenFile:
        return ""


def _lost(update: TrainUpdate) -> TrainUpdate:
    return replace(update, phase="interrupted", detail=LOST)


def _by_app(folder: Path) -> bool:
    """Whether a run ended because its app did: its process had the time to save."""
    ends = [event for event in Reader(folder).read() if event["kind"] == "end"]
    return bool(ends) and ends[-1]["detail"].startswith("The app ended")


def _tell(process: subprocess.Popen[bytes], count: int) -> None:
    with suppress(OSError, ValueError):  # it may have ended
        if process.stdin:
            process.stdin.write(b'{"threads": %d}\n' % count)
            process.stdin.flush()


def _killed(name: str, code: int, folder: Path) -> WorkerCrashed:
    why = reason(code)
    hint = "Resume it. If it ends again, memory may be short: lower the batch size."
    said = "" if code == -signal.SIGKILL else _last_line(folder / runfolder.STDERR)  # who is killed says nothing
    return WorkerCrashed(f"The process of {name} ended ({why}).{f' Its last words: {said}' if said else ''}", hint=hint)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_bytes()[-4096:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""
