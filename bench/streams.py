"""Many answers at once from one set of weights: the engine against the servers and the bare loops of both libraries.

All contestants are asked by the same client, the engine of the app; servers through their OpenAI protocol. One thread
each, greedy, different prompts, in turn. `python -m bench.shape FOLDER` makes the weights: 85M parameters, random.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from multimodel.engine import Engine
from multimodel.settings import ApiSettings, Endpoint, PerformanceSettings, Settings
from multimodel.types import Message, ModelId, SamplingParams, Snapshot

from . import report
from .bare import Bare, environment
from .engine import PROMPTS, attention
from .report import ROOT, Report, Table
from .startup import answers_at, free_port

STREAMS = 8
TURNS = 20


@dataclass(frozen=True)
class Burst:
    """Several answers asked for at once."""

    tokens: int  # of all answers
    seconds: float  # from asking to the end of the last
    firsts: tuple[float, ...] = ()  # seconds to the first token of each

    @property
    def rate(self) -> float:
        """Tokens a second of all answers together."""
        return self.tokens / self.seconds


def prompts(count: int, number: int) -> list[str]:
    """Prompts that no round before has asked, so that no cache knows more of them than the template."""
    return [f"{number}-{i}. {PROMPTS[i % len(PROMPTS)]}" for i in range(count)]


def burst(engine: Engine, models: Sequence[ModelId], number: int, max_tokens: int, *, same: bool = False) -> Burst:
    """Ask each model (the same one may come several times) at once, each or all the `same`. Raises their errors."""
    params, began = SamplingParams(temperature=0.0, max_tokens=max_tokens), time.perf_counter()
    asked = prompts(1, number) * len(models) if same else prompts(len(models), number)
    pairs = zip(models, asked, strict=True)
    runs = [engine.start(model, [Message("user", prompt)], params) for model, prompt in pairs]
    for run in runs:
        run.join()
    seconds = time.perf_counter() - began
    last = [_finished(run.newest.snapshot) for run in runs]
    firsts = tuple(snapshot.timing.first_token - began for snapshot in last if snapshot.timing.first_token)
    return Burst(sum(_tokens(snapshot, max_tokens) for snapshot in last), seconds, firsts)


def _finished(answer: Snapshot) -> Snapshot:
    if answer.error or answer.finish_reason not in ("stop", "length"):
        raise answer.error or RuntimeError(f"{answer.model} was cut short: {answer.finish_reason}")
    return answer


def _tokens(answer: Snapshot, max_tokens: int) -> int:
    """As the server counted them; one that does not count stopped at the limit."""
    if answer.usage and not answer.usage.estimated:
        return answer.usage.output_tokens
    return max_tokens


class Loop:
    """`bench.bare_batch` as a contestant."""

    def __init__(self, path: Path, flash: str, threads: int = 1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.bare_batch", str(path), flash, str(threads)],
            cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, count: int, number: int, max_tokens: int) -> Burst:
        """Answer so many prompts in one batch."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"prompts": prompts(count, number), "max_tokens": max_tokens}) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        return Burst(found["tokens"], found["seconds"], tuple(found["first"]))

    def close(self) -> None:
        """End the process."""
        with self._process:
            self._process.terminate()


@contextmanager
def server(command: Iterable[str], path: str) -> Generator[str]:
    """A peer's server on loopback with one thread; its base URL. `path` answers 200 once it is ready."""
    port = free_port()
    own = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with subprocess.Popen(
        [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)],
        env={**environment(), **own}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            answers_at(process, f"http://127.0.0.1:{port}{path}")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def llama_server(path: Path) -> list[str]:
    """The command of llama-cpp-python's server, set not to cut answers when others wait."""
    plain = ["llama_cpp.server", "--model", str(path), "--model_alias", "m", "--interrupt_requests", "False"]
    return [*plain, "--n_ctx", "1024", "--n_threads", "1", "--n_threads_batch", "1", "--use_mmap", "True"]


def transformers_server(folder: Path, dtype: str) -> list[str]:
    """The command of transformers' server with continuous batching."""
    plain = ["transformers.cli.transformers", "serve", str(folder), "--device", "cpu", "--dtype", dtype]
    return [*plain, "--continuous-batching", "--cb-num-blocks", "256", "--cb-block-size", "32"]


def settings(endpoints: dict[str, str]) -> Settings:
    """One thread for models, and named servers."""
    served = tuple(Endpoint(name=name, base_url=url) for name, url in endpoints.items())
    return Settings(performance=PerformanceSettings(threads=1), api=ApiSettings(endpoints=served))


def gguf_rows(path: Path, rounds: int, max_tokens: int) -> list[tuple[str, ...]]:
    """The rows of llama.cpp for one file; its server has a row for F16 only."""
    ours, peer = ModelId("gguf", str(path)), ModelId("peer", "m")
    with ExitStack() as stack:
        served = path.stem.endswith("f16")
        url = stack.enter_context(server(llama_server(path), "/v1/models")) if served else ""
        engine = stack.enter_context(Engine(settings({"peer": url} if served else {})))
        burst(engine, [ours], 0, 1)  # loads the model, which tells how it attends
        flash = attention(engine, ours)
        loop, bare = Loop(path, flash), stack.enter_context(Bare("bare_llama", str(path), "plain"))
        alike = stack.enter_context(Bare("bare_llama", str(path), flash))
        stack.callback(loop.close)
        contestants: dict[str, Callable[[int], Burst]] = {
            "ours, 1": lambda n: burst(engine, [ours], n, max_tokens),
            "create_completion, 1": lambda n: single(bare, n, max_tokens),
            f"create_completion ({flash}), 1": lambda n: single(alike, n, max_tokens),
            "bare loop, 1": lambda n: loop.ask(1, n, max_tokens),
            "ours, 2": lambda n: burst(engine, [ours] * 2, n, max_tokens),
            "bare loop, 2": lambda n: loop.ask(2, n, max_tokens),
            "ours, 8": lambda n: burst(engine, [ours] * STREAMS, n, max_tokens),
            "bare loop, 8": lambda n: loop.ask(STREAMS, n, max_tokens),
        }
        if served:
            contestants["llama_cpp.server, 8"] = lambda n: burst(engine, [peer] * STREAMS, n, max_tokens)
        found = report.in_turn(contestants, rounds)
    return rows(f"GGUF {path.stem.rpartition('-')[2].upper()}", found)


def transformers_rows(folder: Path, rounds: int, max_tokens: int) -> list[tuple[str, ...]]:
    """The rows of transformers."""
    ours = ModelId("transformers", str(folder))
    with ExitStack() as stack:
        first = stack.enter_context(Engine(settings({})))
        burst(first, [ours], 0, 1)
        dtype = str(first.backend(ours).facts.dtype)  # type: ignore[attr-defined]
        url = stack.enter_context(server(transformers_server(folder, dtype), "/health"))
        engine = stack.enter_context(Engine(settings({"peer": url})))
        bare, peer = stack.enter_context(Bare("bare_torch", str(folder), dtype)), ModelId("peer", str(folder))
        contestants: dict[str, Callable[[int], Burst]] = {
            "ours, 1": lambda n: burst(first, [ours], n, max_tokens),
            "model.generate, 1": lambda n: single(bare, n, max_tokens),
            "ours, 8": lambda n: burst(first, [ours] * STREAMS, n, max_tokens),
            "transformers serve, 8": lambda n: burst(engine, [peer] * STREAMS, n, max_tokens),
        }
        found = report.in_turn(contestants, rounds)
    architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    return rows(f"transformers, {architecture}, {dtype}", found)


def single(bare: Bare, number: int, max_tokens: int) -> Burst:
    """One answer of a library's own loop."""
    sample = bare.ask(prompts(1, number)[0], max_tokens)
    return Burst(sample.tokens, sample.seconds, (sample.first,))


def rows(label: str, found: dict[str, list[Burst]]) -> list[tuple[str, ...]]:
    """Each contestant after ours, which is asked for as many streams."""
    table = []
    for name, theirs in found.items():
        who, _, count = name.rpartition(", ")
        if who == "ours":
            continue
        mine = found[f"ours, {count}"]
        ratio = report.paired([b.rate for b in mine], [b.rate for b in theirs])
        figures = [f"{median(b.rate for b in each):.0f}" for each in (mine, theirs)]
        waits = [f"{1000 * median(max(b.firsts) for b in each):.0f}" for each in (mine, theirs)]
        table.append((f"{label}, {count} against {who}", *figures, f"**{ratio:.2f}**", *waits))
    return table


def conversation(engine: Engine, model: ModelId, number: int, max_tokens: int) -> list[float]:
    """Seconds to the first token of every turn of a new conversation, each with the whole history."""
    messages: list[Message] = []
    firsts = []
    for turn in range(TURNS):
        messages.append(Message("user", f"{number}-{turn:02d}. {PROMPTS[0]}"))
        *_, last = engine.ask(model, messages, SamplingParams(temperature=0.0, max_tokens=max_tokens))
        firsts.append(_finished(last).timing.ttft or 0.0)
        messages.append(Message("assistant", last.text))
    return firsts


def own_rows(models: dict[str, ModelId], rounds: int, max_tokens: int) -> Generator[tuple[str, ...]]:
    """What the engine is compared with itself for."""
    with Engine(settings({})) as engine:
        for label, model in models.items():
            burst(engine, [model], 0, 1)
            turns = [conversation(engine, model, n, 8) for n in range(10, 10 + 2 * rounds)]
            yield _own(f"{label}: first token, turn 20 over turn 2", [(t[-1], t[1]) for t in turns], 1000, "ms")
            for what, same in (("one question in eight columns", True), ("eight different questions", False)):
                worst = waits(engine, model, rounds, max_tokens, same=same)
                yield _own(f"{label}: worst first token of {what} over one alone", worst, 1000, "ms")


def waits(engine: Engine, model: ModelId, rounds: int, max_tokens: int, *, same: bool) -> list[tuple[float, float]]:
    """(worst first token of eight, first token of one) in seconds, in turn, every question new."""
    base = 100 if same else 400
    alone = [burst(engine, [model], base + n, max_tokens) for n in range(rounds)]
    eight = [burst(engine, [model] * STREAMS, base + 100 + n, max_tokens, same=same) for n in range(rounds)]
    return [(max(b.firsts), a.firsts[0]) for a, b in zip(alone, eight, strict=True)]


def beside(engine: Engine, models: Sequence[ModelId], number: int, lengths: Sequence[int]) -> list[Burst]:
    """Ask models at once, each for so many tokens: each one's answer by itself."""
    began = time.perf_counter()
    asked = zip(models, prompts(len(models), number), lengths, strict=True)
    runs = [
        engine.start(model, [Message("user", prompt)], SamplingParams(temperature=0.0, max_tokens=length))
        for model, prompt, length in asked
    ]
    for run in runs:
        run.join()
    last = [_finished(run.newest.snapshot) for run in runs]
    return [Burst(_tokens(s, n), (s.timing.last_token or began) - began) for s, n in zip(last, lengths, strict=True)]


def two_models(pair: Sequence[ModelId], rounds: int, max_tokens: int, threads: int) -> tuple[str, ...]:
    """Two local models at once over the faster one alone; lengths that end together."""
    used = Settings(performance=PerformanceSettings(threads=threads))
    with Engine(used) as engine:
        for model in pair:
            burst(engine, [model], 0, 1)  # loads it
        rates = [burst(engine, [model], 1, 16).rate for model in pair]
        lengths = [round(8 * max_tokens * rate / sum(rates)) for rate in rates]
        contestants: dict[str, Callable[[int], list[Burst]]] = {
            "first": lambda n: beside(engine, pair[:1], n, lengths[:1]),
            "second": lambda n: beside(engine, pair[1:], n, lengths[1:]),
            "both": lambda n: beside(engine, pair, n, lengths),
        }
        found = report.in_turn(contestants, rounds)
    faster = max(found["first"], found["second"], key=lambda rounds: median(only.rate for (only,) in rounds))
    pairs = [(sum(b.rate for b in both), only.rate) for both, (only,) in zip(found["both"], faster, strict=True)]
    return _own(f"two models at once, {threads} threads in all: sum of rates over the faster alone", pairs, 1, "tok/s")


def _own(label: str, pairs: list[tuple[float, float]], scale: float, unit: str) -> tuple[str, ...]:
    ratio = median(a / b for a, b in pairs)
    a, b = (median(scale * pair[i] for pair in pairs) for i in range(2))
    return (label, f"{a:.0f} {unit}", f"{b:.0f} {unit}", f"**{ratio:.2f}**")


def measure(folder: Path, rounds: int, max_tokens: int) -> Report:
    """The tables."""
    files = sorted(folder.glob("gguf/*.gguf"), reverse=True)
    models = {"GGUF": ModelId("gguf", str(files[0])), "transformers": ModelId("transformers", str(folder / "hf"))}
    against = [row for path in files for row in gguf_rows(path, rounds, max_tokens)]
    against += [row for name in ("hf", "qwen3", "phi3") for row in transformers_rows(folder / name, rounds, max_tokens)]
    own = [*own_rows(models, rounds, max_tokens)]
    own.append(two_models([models["GGUF"], models["transformers"]], rounds, max_tokens, 2))
    head: tuple[Any, ...] = ("weights, streams, peer", "ours, tok/s", "peer", "ratio")
    return Report(
        name="streams",
        title="Many answers at once (targets: 1.2, 0.95, 2.4, 0.95 for GGUF, 1.0 and 1.0 for transformers)",
        tables=(
            Table((*head, "ours, worst first token, ms", "peer"), tuple(against)),
            Table(("the engine itself", "", "", "ratio"), tuple(own), "Targets: at most 1.5, at most 3, at least 0.9:"),
        ),
        notes=(
            f"Medians of {rounds} rounds in turn, {max_tokens} tokens an answer; a ratio is the median over rounds.",
            "Rate: tokens of all answers from asking to the end of the last, prompts included.",
            "Servers run with one thread, without cutting answers (`--interrupt_requests False`), with continuous "
            "batching, and are asked over HTTP on loopback by the same engine. With AMX, llama_cpp.server ends with "
            "SIGSEGV on quantised weights, so it is asked for F16.",
            "For Qwen 3 transformers serve sends the prompt back as a first text, so that its first token is none.",
            "create_completion: with the library's options as they come, which leave flash attention off; in brackets, "
            "and the bare loop, as a trial at our first load found quicker for this model.",
            "All peers map the weights from the file, as they come; ours are in large pages of memory where Linux has "
            "them. The bare loop evaluates all streams in one pass, ours each in its own where that was quicker.",
        ),
        packages=("llama-cpp-python", "torch", "transformers"),
    )


def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    parser = report.parser(__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="a folder made by bench.shape")
    parser.add_argument("--tokens", type=int, default=128, help="the length of an answer")
    options = parser.parse_args(argv)
    before = report.load()
    rounds, tokens = (1, 8) if options.tiny else (options.rounds, options.tokens)
    return report.finish(measure(options.weights, rounds, tokens), options, before, "1 a model")


if __name__ == "__main__":
    sys.exit(main())
