"""Values as a person reads them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from multimodel.fairlane import few
from multimodel.prices import Spent, money, spent_text
from multimodel.types import Cost, LoadOptions, ModelId, PromptSize, Snapshot, Stage

FINISH = {
    "stop": "finished",
    "length": "cut at the length limit",
    "content_filter": "ended by the content filter",
    "tool_calls": "wants to call a tool",
    "stopped": "stopped",
    "incomplete": "incomplete",
    "interrupted": "interrupted",
    "error": "failed",
}

STAGES = {
    "queued": "In line",
    "downloading": "Downloading",
    "starting": "Starting the model's process",
    "loading": "Loading the model",
    "reading": "Reading the prompt",
    "retrying": "Trying again",
}

BACKENDS = {
    "transformers": "Transformers",
    "gguf": "GGUF",
    "openai": "OpenAI",
    "hf-inference": "HF Inference",
    "echo": "Echo",
}


def seconds(value: float) -> str:
    """A duration.

    >>> seconds(0.0042), seconds(0.25), seconds(3.14), seconds(75)
    ('4 ms', '250 ms', '3.1 s', '1 min 15 s')
    """
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    return f"{value // 60:.0f} min {value % 60:.0f} s"


def size(count: float) -> str:
    """Bytes in powers of ten, as disks and the Hub give them.

    >>> size(512), size(4_400_000), size(2.5e9)
    ('512 B', '4.4 MB', '2.5 GB')
    """
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit != "MB" else f"{count:.1f} MB"
        count /= 1000
    return f"{count:.1f} GB"


def part_of(done: int, total: int) -> str:
    """So many bytes of all.

    >>> part_of(5_000_000, 10_000_000), part_of(900, 2_000_000)
    ('5.0 of 10.0 MB', '900 B of 2.0 MB')
    """
    held, whole = size(done), size(total)
    same = held.partition(" ")[2] == whole.partition(" ")[2]
    return f"{held.partition(' ')[0] if same else held} of {whole}"


def counted(number: int, thing: str, things: str = "") -> str:
    """A number of things.

    >>> counted(1, "row"), counted(1200, "row"), counted(0, "class", "classes")
    ('1 row', '1,200 rows', '0 classes')
    """
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def short_name(model: ModelId) -> str:
    """What a column head calls a model: the name without owner and path.

    >>> short_name(ModelId.parse("gguf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M"))
    'Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M'
    """
    return model.name.rstrip("/").rpartition("/")[2] or model.name


def backend_name(model: ModelId) -> str:
    """What the page calls the backend; a named endpoint is called by its name."""
    return BACKENDS.get(model.backend, model.backend)


def called(model: ModelId) -> str:
    """Name and backend, where a sentence speaks of a model.

    >>> called(ModelId.parse("gguf:guide"))
    'guide (GGUF)'
    """
    return f"{short_name(model)} ({backend_name(model)})"


def speed(snapshot: Snapshot) -> str:
    """Decoding speed in tokens/s; empty below two tokens, "~" where it is rough or the count is an estimate."""
    usage, rate = snapshot.usage, snapshot.rate
    if rate is None or usage is None:
        return ""
    mark = "~" if usage.estimated or few(usage.output_tokens, rate) else ""
    return f"{mark}{per_second(rate)}"


def per_second(rate: float) -> str:
    """A rate of tokens.

    >>> per_second(9.96), per_second(523.4)
    ('10.0 tok/s', '523 tok/s')
    """
    return f"{rate:.0f} tok/s" if rate >= 10 else f"{rate:.1f} tok/s"


def figures(snapshot: Snapshot) -> list[tuple[str, str]]:
    """(figure, what it is) of one answer, in the order they are read; unknown ones are left out."""
    usage, timing = snapshot.usage, snapshot.timing
    rows: list[tuple[str, str]] = []
    if timing.ttft is not None:
        why = "Time to first token: from asking the model to its first visible text"
        rows.append((f"TTFT {seconds(timing.ttft)}", why))
    if rate := speed(snapshot):
        rough = " Rough: a short answer, or counted by us." if rate.startswith("~") else ""
        rows.append((rate, f"Decoding speed: tokens after the first over the time after the first.{rough}"))
    if usage:
        mark = "~" if usage.estimated else ""
        rows.append((f"{mark}{usage.output_tokens} tokens", _tokens_help(snapshot)))
    if snapshot.cost:
        rows.append(cost_figure(snapshot.cost))
    if snapshot.finish_reason and snapshot.finish_reason != "error":
        rows.append((FINISH[snapshot.finish_reason], f"Finish reason: {snapshot.finish_reason}"))
    if timing.loading >= 0.05 and (snapshot.done or timing.first_token is not None):
        name, why = _loading(snapshot)
        rows.append((f"{name.lower()} {seconds(timing.loading)}", f"{why}; not counted in the other figures"))
    return rows


def _loading(snapshot: Snapshot) -> tuple[str, str]:
    """What the time before a model was asked is called, and what it is: some answers end before they have begun."""
    never = snapshot.timing.last_token is None and snapshot.finish_reason in ("error", "stopped", "interrupted")
    until = "the answer ended, which had not begun" if never else "the model was asked"
    return "Waited" if never else "Ready after", f"Queue, download, start, loading and retries: until {until}"


def cost_figure(cost: Cost) -> tuple[str, str]:
    """What an answer costs, and what to know of it.

    >>> cost_figure(Cost(0.00012, source="told by the service"))
    ('$0.00012', 'US dollars. Told by the service.')
    >>> cost_figure(Cost(None, "No price is known for x."))
    ('cost –', 'No price is known for x.')
    """
    if cost.amount is None:
        return "cost –", cost.about
    parts = ["US dollars", sentence(cost.source), f"An estimate: {cost.about}" if cost.about else ""]
    return f"{'~' * cost.estimated}{money(cost.amount)}", " ".join(f"{part}." for part in parts if part)


def spent_figure(spent: Spent) -> tuple[str, str]:
    """What answers cost together, and what to know of it; empty where nobody is paid.

    >>> spent_figure(Spent(0.5, paid=2, unknown=1))
    ('$0.50, 1 unknown', 'US dollars, for 2 answers, earlier versions included. The cost of 1 answer is not known.')
    """
    if not spent:
        return "", ""
    why = [f"US dollars, for {counted(spent.paid, 'answer')}, earlier versions included."] if spent.paid else []
    why += ["Some of it is an estimate."] if spent.estimated else []
    why += [f"The cost of {counted(spent.unknown, 'answer')} is not known."] if spent.unknown else []
    return spent_text(spent).replace("–", "cost –"), " ".join(why)


def sentence(text: str) -> str:
    """The same with a capital at its start."""
    return text[:1].upper() + text[1:]


def all_figures(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """(name, figure, what it is) of everything known of one answer; what is not known is left out."""
    usage, timing = snapshot.usage, snapshot.timing
    waited, why = _loading(snapshot)
    rows = [
        ("Time to first token", _known(timing.ttft, seconds), "From asking the model to its first visible text"),
        ("Time per output token", _per_token(snapshot), "Decoding: the time after the first token, over the rest"),
        ("Decoding speed", speed(snapshot), "Tokens after the first over the time after the first"),
        ("Time in all", _known(timing.total, seconds), "From asking the model to its last token"),
        (waited, _known(timing.loading or None, seconds), why),
    ]
    if usage:
        about = "about " if usage.estimated else ""
        reused = f"{usage.reused_tokens:,} of {usage.input_tokens:,} reused" if usage.reused_tokens else ""
        rows += [
            ("Answer", f"{about}{counted(usage.output_tokens, 'token')}", "As the backend counts, thoughts included"),
            ("Of them thoughts", _thoughts(snapshot), "Reasoning tokens: told by the service, or by its share of text"),
            ("Prompt", f"{about}{counted(usage.input_tokens, 'token')}" if usage.input_tokens else "", "What was read"),
            ("Prompt tokens", reused, "Not evaluated again: their keys and values were in a cache"),
        ]
    cost = cost_figure(snapshot.cost) if snapshot.cost else ("", "")
    ended = FINISH[snapshot.finish_reason] if snapshot.finish_reason else ""
    rows += [
        ("Peak memory", _known(snapshot.memory, size), "The most that the model's process was seen to take, resident"),
        ("Cost", cost[0].removeprefix("cost "), cost[1]),
        ("Answered by", snapshot.provider, "Whom the router chose"),
        ("End", ended, f"Finish reason: {snapshot.finish_reason}"),
    ]
    return [row for row in rows if row[1]]


def _known(value: float | None, words: Callable[[float], str]) -> str:
    return "" if value is None else words(value)


def _per_token(snapshot: Snapshot) -> str:
    """Time per output token, marked like the speed that it is the inverse of.

    >>> from multimodel.types import Timing, Usage
    >>> usage, timing = Usage(5, 101), Timing(0.0, 1.0, 2.0)
    >>> _per_token(Snapshot(ModelId("echo", "any"), "", timing, usage))
    '10.0 ms'
    """
    rate = snapshot.rate
    return f"{'~' * speed(snapshot).startswith('~')}{1000 / rate:.1f} ms" if rate else ""


def _thoughts(snapshot: Snapshot) -> str:
    """How many of the tokens were thoughts; by their share of the text where nobody says it.

    >>> from multimodel.types import Timing, Usage
    >>> said = Snapshot(ModelId("gguf", "m"), "abc", Timing(0.0), Usage(5, 40), reasoning="abc def ghi")
    >>> _thoughts(said)
    'about 31 tokens'
    """
    usage, letters = snapshot.usage, len(snapshot.reasoning)
    if not usage or not (letters or usage.reasoning_tokens):
        return ""
    if usage.reasoning_tokens is not None:
        return counted(usage.reasoning_tokens, "token")
    return f"about {counted(round(usage.output_tokens * letters / (letters + len(snapshot.text))), 'token')}"


def _tokens_help(snapshot: Snapshot) -> str:
    assert snapshot.usage
    reused = f", {snapshot.usage.reused_tokens} of them reused" if snapshot.usage.reused_tokens else ""
    return f"Tokens of the answer. The prompt took {snapshot.usage.input_tokens}{reused}."


def stage_text(stage: Stage) -> str:
    """One line on what an answer waits for.

    >>> stage_text(Stage("retrying", "Too many requests.", seconds=2.4))
    'Too many requests. Trying again in 3 s'
    """
    if stage.name == "retrying":
        return f"{stage.detail} Trying again in {int(stage.seconds or 0) + 1} s"
    percent = f" {stage.fraction:.0%}" if stage.fraction is not None else ""
    detail = f": {stage.detail}" if stage.detail else ""
    left = f", {seconds(stage.seconds)} left" if stage.seconds and stage.name == "downloading" else ""
    return f"{STAGES[stage.name]}{percent}{detail}{left}"


def listed(names: Iterable[str]) -> str:
    """Names in a sentence, each once.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "a", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    *most, last = dict.fromkeys(names)
    return f"{', '.join(most)} and {last}" if most else last


def overflows(sizes: Iterable[tuple[ModelId, PromptSize]]) -> list[str]:
    """What would happen where a prompt is too long: a sentence for all models that it happens to alike.

    >>> guide, long = ModelId("gguf", "guide"), PromptSize(1210, 1024, dropped=2)
    >>> overflows([(guide, long), (guide, long), (guide, PromptSize(3, 1024))])
    ['guide (GGUF): 1,210 of 1,024 tokens. The oldest 2 messages would be left out.']
    """
    found: dict[str, list[str]] = {}
    for model, measured in sizes:
        if what := overflow(measured):
            found.setdefault(what, []).append(called(model))
    return [f"{listed(names)}: {what}" for what, names in found.items()]


def overflow(measured: PromptSize) -> str:
    """What would happen to a prompt that is too long; empty when it fits.

    >>> overflow(PromptSize(1210, 1024, dropped=2))
    '1,210 of 1,024 tokens. The oldest 2 messages would be left out.'
    """
    if not measured.dropped and measured.tokens < measured.context_length:
        return ""
    what = "message" if measured.dropped == 1 else f"{measured.dropped} messages"
    then = f"The oldest {what} would be left out." if measured.dropped else "The prompt alone is too long: shorten it."
    return f"{size_words(measured)}. {then}"


def size_words(measured: PromptSize) -> str:
    """How much of a context a prompt takes.

    >>> size_words(PromptSize(1210, 4096, estimated=True))
    'about 1,210 of 4,096 tokens'
    """
    about = "about " if measured.estimated else ""
    return f"{about}{measured.tokens:,} of {measured.context_length:,} tokens"


def variations(load: LoadOptions) -> list[str]:
    """How a model is loaded otherwise than usual, in words.

    >>> variations(LoadOptions(rope_scaling="yarn", rope_factor=4.0, kv_type="q8_0", adapter="a/b.gguf"))
    ['q8_0 cache', 'context stretched 4 times (yarn)', 'adapter b.gguf']
    >>> variations(LoadOptions(dtype="int4", context_length=8192))
    ['int4', '8,192 tokens of context']
    """
    words = {
        "dtype": load.dtype,
        "context_length": f"{load.context_length or 0:,} tokens of context",
        "kv_type": f"{load.kv_type} cache",
        "flash_attention": f"{'with' if load.flash_attention else 'without'} flash attention",
        "gpu_layers": f"{load.gpu_layers} layers on the GPU",
        "revision": f"revision {load.revision}",
        "rope_scaling": f"context stretched {load.rope_factor:g} times ({load.rope_scaling})",
        "adapter": f"adapter {Path(load.adapter or '').name}",
        "adapter_scale": f"{load.adapter_scale:g} times",
        "chat_template": "another chat template",
    }
    return [text for name, text in words.items() if name in load.changed()]
