"""How far memory estimates are off: ours, and three rules of thumb that people use, against the truth.

GGUF: the truth is llama.cpp's own accounting of contexts of real shapes. What is judged is the formula, which answers
where llama.cpp cannot; an exact plan is that accounting. transformers: peak resident memory of real loads and
generations, and of training, in processes of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from multimodel.memory.context import ContextSettings
from multimodel.memory.engine import Account, Accountant
from multimodel.memory.gguf import Header, read_header
from multimodel.memory.gguf_plan import GgufModel
from multimodel.memory.llama import account_by_formula
from multimodel.memory.plan import ACCURACY, LEAST_ERROR, MemoryPlan, Request, Training
from multimodel.memory.source import FileSource
from multimodel.memory.subject import on_disk
from multimodel.memory.target import Target
from multimodel.memory.torch_plan import Stored, TorchModel

from . import report
from .bare import environment
from .report import ROOT, Report, Table
from .shapes import MODELS, UNSEEN, Gguf

MIB = 1 << 20
LENGTHS = (2048, 8192, 32768, 131072)
CACHES = (("f16", False), ("f16", True), ("q8_0", True), ("q4_0", True))
CARDS = tuple(gib << 30 for gib in (4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 192, 256, 512, 1024))
PATIENCE = 900.0  # seconds for one process


@dataclass(frozen=True)
class Case:
    """One context of one shape."""

    name: str
    model: GgufModel
    settings: ContextSettings
    truth: Account

    @property
    def total(self) -> int:
        """What it really takes, the framework left out: bytes."""
        found = self.truth
        return self.model.header.weights + found.kv_cache + found.recurrent + found.compute + found.output

    @property
    def allowed(self) -> float:
        """The error that is asked for."""
        return max(ACCURACY * self.total, LEAST_ERROR)


Rule = Callable[[Case], float]


def ours(case: Case) -> float:
    """Our formula."""
    found = account_by_formula(case.model.shape, case.settings)
    return case.model.header.weights + found.kv_cache + found.recurrent + found.compute + found.output


def hf_mem(case: Case) -> float:
    """hf-mem's rule for GGUF: weights, and 2 × layers × KV heads × (embedding ÷ heads) × tokens, for all layers."""
    header, settings = case.model.header, case.settings
    heads, kv_heads = (_one(header.fact(f"attention.{name}")) for name in ("head_count", "head_count_kv"))
    head = header.fact("embedding_length", 0) // heads if heads else 0
    width = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}[settings.kv_type]
    cache = 2 * header.fact("block_count", 0) * kv_heads * head * settings.length * settings.sequences * width
    return float(header.weights + cache)


def accelerate(case: Case) -> float:
    """accelerate's estimate for inference: the weights without an output layer of their own, and 20 %."""
    header = case.model.header
    output = header.tensor("output.weight")
    return 1.2 * (header.weights - (output.size if output else 0))


def plus_fifth(case: Case) -> float:
    """Parameters times bytes, and 20 %."""
    return 1.2 * case.model.header.weights


RULES: dict[str, Rule] = {
    "ours, by formula": ours,
    "hf-mem's rule": hf_mem,
    "parameters × bytes + 20 %": plus_fifth,
    "accelerate's rule": accelerate,
}


def _one(value: Any) -> int:
    """A number, or the largest of a number a layer."""
    return int(max(value) if isinstance(value, list) else value or 0)


def settings(lengths: Sequence[int], sequences: Sequence[int] = (1, 4)) -> list[ContextSettings]:
    """The contexts asked for."""
    return [
        ContextSettings(length=length, sequences=many, kv_type=cache, flash_attention=flash)
        for length in lengths
        for many in sequences
        for cache, flash in CACHES
    ]


def cases(names: Sequence[str], wanted: Sequence[ContextSettings], shapes: dict[str, Callable[[], Gguf]]) -> list[Case]:
    """The truth, by llama.cpp; contexts that it refuses, or that end it, are left out."""
    accountant, found = Accountant(), []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            model = GgufModel(name, header_of(shapes[name](), Path(folder)))
            truths = accountant.account(model.header, wanted, seconds=PATIENCE)
            assert truths, f"llama.cpp does not answer for {name}"
            made = [(s, t) for s, t in zip(wanted, truths, strict=True) if not t.refusal and not t.ended]
            found += [Case(name, model, *pair) for pair in made]
    accountant.close()
    return found


def header_of(shape: Gguf, folder: Path) -> Header:
    """The header of a shape, by way of a file."""
    return read_header([FileSource(shape.write(folder / "shape.gguf"))])


def compared(found: Sequence[Case], rules: dict[str, Rule]) -> tuple[tuple[str, ...], ...]:
    """A row for each rule: errors over all cases, and how often it says "fits" where it does not."""
    rows = []
    for name, rule in rules.items():
        errors = [rule(case) / case.total - 1 for case in found]
        within = sum(abs(rule(case) - case.total) <= case.allowed for case in found)
        wrong = sum(rule(case) <= card < case.total for case in found for card in CARDS)
        all_in = f"{100 * within / len(found):.1f} %"
        rows.append((name, all_in, *_spread(errors), f"{wrong:,} of {len(found) * len(CARDS):,}"))
    return tuple(rows)


def _spread(errors: Sequence[float]) -> tuple[str, str, str]:
    return (
        f"{100 * median(map(abs, errors)):.2f} %",
        f"{100 * min(errors):+.1f} %",
        f"{100 * max(errors):+.1f} %",
    )


def safe(case: Case) -> float:
    """Our formula with the margin that a verdict is made with."""
    return ours(case) + max(LEAST_ERROR, ACCURACY * ours(case))


def by_model(found: Sequence[Case]) -> tuple[tuple[str, ...], ...]:
    """A row for each shape: the worst error of our formula."""
    rows = []
    for name in dict.fromkeys(case.name for case in found):
        mine = [case for case in found if case.name == name]
        worst = max(mine, key=lambda case: abs(ours(case) - case.total) / case.allowed)
        off = (ours(worst) - worst.total) / MIB
        cache = max(abs(account_by_formula(c.model.shape, c.settings).kv_cache - c.truth.kv_cache) for c in mine)
        where = f"{worst.settings.length:,} × {worst.settings.sequences}, {worst.settings.kv_type}"
        share = f"{100 * off * MIB / worst.total:+.2f} %"
        rows.append((name, str(len(mine)), f"{off:+.0f}", share, where, f"{cache / MIB:.1f}"))
    return tuple(rows)


# transformers


@dataclass(frozen=True)
class Torch:
    """A random model to load and to let write."""

    name: str
    config: dict[str, Any]


def _llama(
    layers: int, width: int, forward: int, heads: int, kv_heads: int, vocabulary: int, tied: bool
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": forward,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": tied,
    }


TORCH = (
    Torch("58M", _llama(8, 512, 1408, 8, 8, 32000, False)),
    Torch("128M tied", _llama(12, 768, 3072, 12, 4, 32000, True)),
    Torch("153M", _llama(12, 768, 3072, 12, 4, 32000, False)),
    Torch("303M tied", _llama(16, 1024, 4096, 16, 8, 50000, True)),
)
LARGER = (
    Torch("1.1B", _llama(22, 2048, 5632, 32, 4, 32000, False)),
    Torch("3.2B tied", _llama(28, 3072, 8192, 24, 8, 128256, True)),
)
PROMPT, WRITTEN = 512, 16
TRAININGS = (
    Training(batch_size=1),
    Training(batch_size=8),
    Training(batch_size=16),
    Training(batch_size=16, sequence_length=256),
    Training(batch_size=8, sequence_length=512),
    Training(batch_size=8, sequence_length=512, checkpointing=True),
)


def resident(*arguments: object) -> int:
    """Peak bytes of a process of `bench.resident`."""
    command = [sys.executable, "-m", "bench.resident", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return int(json.loads(done.stdout.splitlines()[-1])["peak"])


def generations(models: Sequence[Torch]) -> Iterator[tuple[str, ...]]:
    """A row for each model and format."""
    for model in models:
        for dtype in ("float32", "bfloat16"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder)
                resident("save", path, dtype, json.dumps(model.config))
                truth = resident("generate", path, dtype, PROMPT, WRITTEN)
                plan = _plan(path, dtype)
            weights, cache = plan.weights, plan.kv_cache
            others = (weights + cache, 1.2 * weights, 1.2 * weights)
            yield (f"{model.name}, {dtype}", f"{truth / MIB:,.0f}", *_beside(truth, plan.total, *others))


def _plan(path: Path, dtype: str) -> MemoryPlan:
    found = on_disk(path, str(path))
    assert isinstance(found, TorchModel)
    return found.plan(Request(context_length=PROMPT + WRITTEN, batch_tokens=PROMPT, dtype=dtype, target=Target()))


def trainings(wanted: Sequence[Training]) -> Iterator[tuple[str, ...]]:
    """A row for each way to train DistilBERT. accelerate's figure for Adam is four times the weights."""
    model = distilbert()
    for how in wanted:
        truth = resident("train", how.batch_size, how.sequence_length, how.checkpointing)
        plan = model.plan(Request(training=how))
        name = f"batch {how.batch_size} × {how.sequence_length}" + ", checkpointing" * how.checkpointing
        simple = 4 * plan.weights
        yield (name, f"{truth / MIB:,.0f}", *_beside(truth, plan.total, simple, 1.2 * simple))


def distilbert() -> TorchModel:
    """DistilBERT with two labels: 66,955,010 parameters."""
    config = {"model_type": "distilbert", "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072}
    count = 66_955_010
    config |= {"vocab_size": 30522, "max_position_embeddings": 512}
    return TorchModel("distilbert", config, (Stored("F32", count, 4 * count),), tokenizer=False)


def _beside(truth: int, *guesses: float) -> tuple[str, ...]:
    return tuple(f"{100 * (guess / truth - 1):+.1f} %" for guess in guesses)


# speed


def speed(rounds: int) -> tuple[tuple[str, ...], ...]:
    """How long a plan takes."""
    accountant = Accountant()
    with tempfile.TemporaryDirectory() as folder:
        model = GgufModel("llama-3.1-8b", header_of(MODELS["llama-3.1-8b"](), Path(folder)))
        started = time.perf_counter()
        accountant.account(model.header, [ContextSettings(length=4096)])
        cold = time.perf_counter() - started
        lengths = range(2048, 2048 + 256 * rounds, 256)
        warm = [_took(lambda n=n: accountant.account(model.header, [ContextSettings(length=n)])) for n in lengths]
        formula = [_took(lambda n=n: model.plan(Request(context_length=n))) for n in lengths]
        longest = _took(lambda: model.plan(Request()).longest_context(("RTX 4090", 24 << 30)))
    accountant.close()
    return (
        ("exact, its process not yet started", f"{1000 * cold:.0f}"),
        ("exact, asked before (a slider)", f"{1000 * median(warm):.0f}"),
        ("by formula", f"{1000 * median(formula):.2f}"),
        ("the longest context that fits, by formula", f"{1000 * longest:.1f}"),
    )


def _took(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


COLUMNS = ("rule", "within 2 % or 64 MiB", "median error", "lowest", "highest", "“fits” where it does not")


def gguf_tables(names: Sequence[str], unseen: Sequence[str], lengths: Sequence[int]) -> tuple[Table, ...]:
    """The tables about GGUF."""
    fitted, others = cases(names, settings(lengths), MODELS), cases(unseen, settings(lengths), UNSEEN)
    every = [*fitted, *others]
    title = (
        f"GGUF, {len(every):,} contexts of {len(names) + len(unseen)} shapes, {lengths[0]:,} to {lengths[-1]:,} tokens"
    )
    rules = {**RULES, "ours, with the margin of a verdict": safe}
    return (
        Table(COLUMNS, compared(every, rules), f"{title}:"),
        Table(COLUMNS, compared(others, {"ours, by formula": ours}), "The shapes on which the formula was not fitted:"),
        Table(
            ("shape", "contexts", "worst error, MiB", "of the total", "at", "KV cache off by, MiB"),
            by_model(every),
            "Our formula by shape:",
        ),
    )


def measure(*, tiny: bool, larger: bool, rounds: int) -> Report:
    """Everything."""
    names, unseen = (list(MODELS)[:2], list(UNSEEN)[:1]) if tiny else (list(MODELS), list(UNSEEN))
    models = TORCH[:1] if tiny else (*TORCH, *LARGER) if larger else TORCH
    beside = ("ours", "hf-mem's rule", "+ 20 %", "accelerate's rule")
    return Report(
        "memory",
        "Memory estimates against the truth (target 2 % or 64 MiB; transformers 5 %, training 10 %)",
        (
            *gguf_tables(names, unseen, LENGTHS[:1] if tiny else LENGTHS),
            Table(
                ("transformers, 512 tokens read, 16 written", "peak, MiB", *beside),
                tuple(generations(models)),
                "Peak resident memory of a process that loads a random model and lets it write:",
            ),
            Table(
                ("training DistilBERT, float32, AdamW", "peak, MiB", "ours", "4 × weights", "the same + 20 %"),
                tuple(trainings(TRAININGS[:1] if tiny else TRAININGS)),
                "Peak resident memory of training:",
            ),
            Table(("time of a plan", "ms"), speed(1 if tiny else rounds)),
        ),
        (
            "GGUF truth: `no_alloc` contexts of llama.cpp, flash attention on and off, KV cache in f16, q8_0 and q4_0, "
            "one and four conversations; the framework's share is left out of both sides.",
            f"“Fits” is asked for {len(CARDS)} sizes of memory from 4 GiB to 1 TiB.",
            "transformers: the rules of others say nothing of the libraries, which are most of a small model's memory.",
        ),
        ("llama-cpp-python", "torch", "transformers"),
    )


def main() -> int:
    """Measure and report."""
    options = report.parser(__doc__)
    options.add_argument("--larger", action="store_true", help="models of 1B and 3B parameters too: minutes, 15 GB")
    chosen = options.parse_args()
    before = report.load()
    found = measure(tiny=chosen.tiny, larger=chosen.larger, rounds=max(5, chosen.rounds))
    return report.finish(found, chosen, before, "1")


if __name__ == "__main__":
    sys.exit(main())
