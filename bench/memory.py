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
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from multimodel.memory.config_shape import shape_of_config
from multimodel.memory.context import CACHE_TYPES, ContextSettings
from multimodel.memory.engine import Account, Accountant
from multimodel.memory.gguf import Header, read_header
from multimodel.memory.gguf_plan import GgufModel
from multimodel.memory.llama import account_by_formula
from multimodel.memory.plan import ACCURACY, LEAST_ERROR, MemoryPlan, Request, Training
from multimodel.memory.source import FileSource
from multimodel.memory.subject import on_disk
from multimodel.memory.target import Target
from multimodel.memory.torch_plan import Stored, TorchModel
from multimodel.types import KVType

from . import report
from .bare import environment
from .report import ROOT, Report, Table
from .shapes import MODELS, UNSEEN, Gguf

MIB = 1 << 20
LENGTHS = (2048, 8192, 32768, 131072)
PLAIN: tuple[KVType, ...] = ("f32", "f16", "bf16")
CACHES = tuple((kind, flash) for kind in CACHE_TYPES for flash in (False, True) if flash or kind in PLAIN)
FEW = tuple((kind, flash) for kind, flash in CACHES if kind in ("f16", "q8_0"))
CARDS = tuple(gib << 30 for gib in (4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 192, 256, 512, 1024))
PATIENCE = 900.0  # seconds for one process
AGAIN = 3  # times; with checkpointing a peak differs by a tenth from run to run


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
    _, width = CACHE_TYPES[settings.kv_type]
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


Caches = Sequence[tuple[KVType, bool]]
"""Formats of a KV cache, each with or without flash attention."""


def settings(lengths: Sequence[int], caches: Caches) -> list[ContextSettings]:
    """The contexts asked for, of one conversation and of four."""
    return [
        ContextSettings(length=length, sequences=many, kv_type=cache, flash_attention=flash)
        for length in lengths
        for many in (1, 4)
        for cache, flash in caches
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


@dataclass(frozen=True)
class Lesson:
    """An encoder and how it is trained."""

    name: str
    config: dict[str, Any]
    how: Training


def encoder(layers: int, width: int, heads: int, vocabulary: int = 30522) -> dict[str, Any]:
    """A DistilBERT of other measures."""
    return {
        "model_type": "distilbert",
        "n_layers": layers,
        "dim": width,
        "n_heads": heads,
        "hidden_dim": 4 * width,
        "vocab_size": vocabulary,
        "max_position_embeddings": 512,
    }


BERT = {
    "model_type": "bert",
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}
FITTED = {  # the constants of `multimodel.memory.training` are fitted to these
    "DistilBERT, 6 × 768": encoder(6, 768, 12),
    "4 × 256": encoder(4, 256, 4),
    "12 × 384": encoder(12, 384, 12),
    "3 × 1024": encoder(3, 1024, 16),
}
HELD_OUT = {  # and judged by these
    "2 × 128": encoder(2, 128, 2),
    "4 × 512": encoder(4, 512, 8),
    "6 × 384": encoder(6, 384, 6),
    "8 × 640, 50,000 words": encoder(8, 640, 10, 50_000),
    "BERT, 12 × 768": BERT,
}
WAYS = (
    Training(batch_size=16, sequence_length=64),
    Training(batch_size=8, sequence_length=128),
    Training(batch_size=16, sequence_length=128),
    Training(batch_size=4, sequence_length=384),
    Training(batch_size=4, sequence_length=512, checkpointing=True),
)


def lessons(shapes: dict[str, dict[str, Any]], ways: Sequence[Training]) -> list[Lesson]:
    """Every shape in every way."""
    return [Lesson(name, config, how) for name, config in shapes.items() for how in ways]


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


def trainings(wanted: Sequence[Lesson]) -> Iterator[tuple[str, ...]]:
    """A row for each. accelerate's figure for Adam is four times the weights."""
    for lesson in wanted:
        how = lesson.how
        asked = ("train", json.dumps(lesson.config), how.batch_size, how.sequence_length, how.checkpointing)
        truth = int(median(resident(*asked) for _ in range(AGAIN if how.checkpointing else 1)))
        plan = trained(lesson.config).plan(Request(training=how))
        name = f"{lesson.name}: batch {how.batch_size} × {how.sequence_length}" + ", checkpointing" * how.checkpointing
        simple = 4 * plan.weights
        yield (name, f"{truth / MIB:,.0f}", *_beside(truth, plan.total, simple, 1.2 * simple))


def trained(config: dict[str, Any]) -> TorchModel:
    """A classifier with two labels. Its parameters are counted as the library makes them."""
    shape = shape_of_config(config)
    width, layers = shape.embedding, len(shape.layers)
    tables = shape.vocabulary + 512 + (2 if config["model_type"] == "bert" else 0)
    each = 4 * width * (width + 1) + 2 * shape.feed_forward * width + shape.feed_forward + width + 4 * width
    head = width * (width + 1) + 2 * (width + 1)
    count = tables * width + 2 * width + layers * each + head
    return TorchModel(config["model_type"], config, (Stored("F32", count, 4 * count),), tokenizer=False)


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


def gguf_tables(names: Sequence[str], unseen: Sequence[str], wanted: Sequence[ContextSettings]) -> tuple[Table, ...]:
    """The tables about GGUF."""
    fitted, others = cases(names, wanted, MODELS), cases(unseen, wanted, UNSEEN)
    every = [*fitted, *others]
    lengths = [context.length for context in wanted]
    shapes = len(names) + len(unseen)
    title = f"GGUF, {len(every):,} contexts of {shapes} shapes, {min(lengths):,} to {max(lengths):,} tokens"
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


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    names: tuple[str, ...] = tuple(MODELS)
    unseen: tuple[str, ...] = tuple(UNSEEN)
    contexts: tuple[ContextSettings, ...] = tuple(settings(LENGTHS, CACHES))
    models: tuple[Torch, ...] = TORCH
    fitted: tuple[Lesson, ...] = tuple(lessons(FITTED, WAYS))
    held_out: tuple[Lesson, ...] = tuple(lessons(HELD_OUT, WAYS))


QUICK = Extent(
    contexts=tuple(settings((LENGTHS[0], LENGTHS[-1]), FEW)),
    models=TORCH[:2],
    fitted=tuple(lessons(dict(list(FITTED.items())[:1]), WAYS[1:2])),
    held_out=tuple(lessons(dict(list(HELD_OUT.items())[:2]), WAYS[1:2])),
)
TINY = replace(
    QUICK,
    names=tuple(MODELS)[:2],
    unseen=tuple(UNSEEN)[:1],
    contexts=tuple(settings(LENGTHS[:1], FEW)),
    models=TORCH[:1],
    fitted=(),
    held_out=tuple(lessons(dict(list(HELD_OUT.items())[:1]), WAYS[:1])),
)


def measure(extent: Extent, rounds: int) -> Report:
    """Everything."""
    beside = ("ours", "hf-mem's rule", "+ 20 %", "accelerate's rule")
    training = ("peak, MiB", "ours", "4 × weights", "the same + 20 %")
    return Report(
        "memory",
        "Memory estimates against the truth (target 2 % or 64 MiB; transformers 5 %, training 10 %)",
        (
            *gguf_tables(extent.names, extent.unseen, extent.contexts),
            Table(
                ("transformers, 512 tokens read, 16 written", "peak, MiB", *beside),
                tuple(generations(extent.models)),
                "Peak resident memory of a process that loads a random model and lets it write:",
            ),
            Table(
                ("training, float32, AdamW", *training),
                tuple(trainings(extent.held_out)),
                "Peak resident memory of training, shapes that had no part in fitting the formula:",
            ),
            Table(("the same, shapes it was fitted to", *training), tuple(trainings(extent.fitted))),
            Table(("time of a plan", "ms"), speed(rounds)),
        ),
        (
            "GGUF truth: `no_alloc` contexts of llama.cpp, of every format of the KV cache, with and without flash "
            "attention, for one and four conversations; the framework's share is left out of both sides. Contexts "
            "that llama.cpp refuses, or that end its process, have no truth; some are longer than the shape was "
            "trained for.",
            f"“Fits” is asked for {len(CARDS)} sizes of memory from 4 GiB to 1 TiB.",
            f"Training with checkpointing: the median of {AGAIN} runs, which differ by up to a tenth: the allocator "
            "keeps more or less of what was freed.",
            "transformers: the rules of others say nothing of the libraries, which are most of a small model's memory.",
        ),
        ("llama-cpp-python", "torch", "transformers"),
    )


def main() -> int:
    """Measure and report."""
    options = report.parser(__doc__)
    options.add_argument("--quick", action="store_true", help="a part of everything, in some minutes")
    options.add_argument("--larger", action="store_true", help="models of 1B and 3B parameters too: minutes, 15 GB")
    chosen = options.parse_args()
    before = report.load()
    extent = TINY if chosen.tiny else QUICK if chosen.quick else Extent()
    if chosen.larger:
        extent = replace(extent, models=(*extent.models, *LARGER))
    found = measure(extent, 1 if chosen.tiny else max(5, chosen.rounds))
    return report.finish(found, chosen, before, "1")


if __name__ == "__main__":
    sys.exit(main())
