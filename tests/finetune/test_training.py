"""What happens inside the process that trains: losses, weights, order, number formats, ends that are no ends."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bench.kills import Forks, ordered
from multimodel.errors import (
    BrokenFile,
    DiskFull,
    Diverged,
    InvalidParameter,
    ModelNotFound,
    MultimodelError,
    NotEnoughMemory,
    TrainingError,
    Unexpected,
)
from multimodel.finetune import checkpoints, child
from multimodel.finetune.bases import base_folder
from multimodel.finetune.classifier import load_model
from multimodel.finetune.data import Dataset, as_table, dataset, guess
from multimodel.finetune.events import Reader, Writer, fold
from multimodel.finetune.jobs import Jobs
from multimodel.finetune.labels import LabelMap
from multimodel.finetune.order import batches_of, by_length, grouped
from multimodel.finetune.runfolder import Order
from multimodel.finetune.types import TrainConfig, TrainUpdate
from multimodel.settings import Settings

from ..support import ROOT, needs
from .support import sentences, settings_in, tiny_encoder, write_csv


def config(place: Path, name: str, **settings: object) -> TrainConfig:
    values = {"data": str(place / "data.csv"), "base": str(place / "encoder"), "name": name, "epochs": 2}
    return TrainConfig(**values | {"learning_rate": 3e-3, "precision": "float32"} | settings)  # type: ignore[arg-type]


def trained(pool: Forks, asked: TrainConfig, place: Path) -> TrainUpdate:
    """The end of a run in a process of its own."""
    folder = ordered(asked, settings_in(place))
    pool.start(folder)
    pool.wait()
    return fold(TrainUpdate(asked.name), Reader(folder).read())


def saved(place: Path, name: str, file: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((place / "models" / name / file).read_text())
    return found


# --- order ---


def test_every_row_once_in_an_order_of_its_own_each_epoch() -> None:
    lengths = [(7 * i) % 50 + 3 for i in range(1000)]
    first, second = grouped(lengths, 16, 1), grouped(lengths, 16, 2)
    assert sorted(first) == sorted(second) == list(range(1000)) and first != second
    assert first == grouped(lengths, 16, 1)
    padded = sum(16 * max(lengths[i] for i in first[k : k + 16]) for k in range(0, 1000, 16))
    assert sum(lengths) / padded > 0.9  # hardly any padding
    assert max(lengths[i] for i in first[:16]) == max(lengths)  # the longest come first


def test_batches_of_predictions_keep_to_their_bounds() -> None:
    lengths = [(7 * i) % 50 + 3 for i in range(300)] + [900]
    batches = batches_of(lengths, tokens=512, rows=20)
    assert sorted(i for batch in batches for i in batch) == list(range(301))
    assert all(len(b) <= 20 and (len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 512) for b in batches)
    assert by_length([1, 3, 2]) == [1, 2, 0]


# --- losses ---


def test_the_parts_of_a_step_add_up_to_the_loss_of_the_whole() -> None:
    import torch

    from multimodel.finetune.trainer import loss_function

    torch.manual_seed(0)
    outputs, truth = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 1])
    for task, labels in (
        ("single_label", truth),
        ("multi_label", torch.nn.functional.one_hot(truth, 3).float()),
    ):
        for weights in (None, [1.0, 2.0, 0.5]):
            loss = loss_function(task, weights)  # type: ignore[arg-type]
            whole = loss(SimpleNamespace(logits=outputs), labels)
            count = torch.tensor(labels.numel())
            parts = [loss(SimpleNamespace(logits=outputs[k]), labels[k], count) for k in (slice(0, 4), slice(4, 6))]
            assert torch.allclose(sum(parts), whole)
    plain = loss_function("single_label", None)(SimpleNamespace(logits=outputs), truth)
    assert torch.allclose(plain, torch.nn.functional.cross_entropy(outputs, truth))
    numbers = loss_function("regression", None)(SimpleNamespace(logits=outputs[:, :1]), outputs[:, 1])
    assert torch.allclose(numbers, torch.nn.functional.mse_loss(outputs[:, 0], outputs[:, 1]))


def test_class_weights_make_classes_count_alike() -> None:
    from multimodel.finetune.trainer import class_weights

    truth = [0] * 90 + [1] * 10
    weights = class_weights(truth, "single_label", 2)
    assert weights and weights[0] * 90 == pytest.approx(weights[1] * 10)
    assert sum(weights[t] for t in truth) == pytest.approx(100)
    assert class_weights([0.5, 1.5], "regression", 1) is None
    assert class_weights([[1.0, 0.0]] * 10 + [[0.0, 0.0]] * 30, "multi_label", 2) == [3.0, 20.0]


def test_the_same_log_gives_the_same_best() -> None:
    from multimodel.finetune.reporter import Judged, judge

    log = [{"eval_loss": value, "step": i, "eval_f1": 1 - value} for i, value in enumerate((0.9, 0.5, 0.7, 0.6), 1)]
    assert judge(log, "loss", 1000) == judge(log, "f1", 1000) == Judged(2, 0.5, 0.5, 0.5, stale=2)
    still = [{"eval_loss": value, "step": i, "eval_f1": 0.0} for i, value in enumerate((0.7, 0.6, 0.65), 1)]
    assert judge(still, "f1", 1000) == Judged(2, 0.0, 0.6, 0.0, stale=1)  # where F1 stands still, the loss decides
    assert judge([{"loss": 1.0, "step": 1}], "f1", 1000).step is None


def test_what_is_lower_by_chance_is_as_good_and_trained_for_longer() -> None:
    from multimodel.finetune.reporter import judge

    def best(*values: float, rows: int = 100, metric: str = "f1") -> tuple[int | None, int]:
        found = judge([{f"eval_{metric}": value, "step": i} for i, value in enumerate(values, 1)], metric, rows)
        return found.step, found.stale

    assert best(0.5, 0.8, 0.77, 0.7) == (3, 2), "a standard error of .8 over 100 rows is .04"
    assert best(0.5, 0.8, 0.77, 0.7, rows=1000) == (2, 2)
    assert best(0.8, 0.77, 0.74) == (2, 2), "the highest counts, not the one before"
    assert best(0.8, 0.77, 0.9) == (3, 0)
    assert best(0.5, 0.49, metric="rmse") == (2, 0) and best(0.5, 0.51, metric="rmse") == (1, 1)
    assert best(float("nan"), 0.5, 0.4, rows=1000) == (2, 1)


# --- kinds of tasks and settings ---


def test_several_labels(pool: Forks, place: Path) -> None:
    rows = [(text, f"{mood}|dog" if "dog" in text else mood) for text, mood in sentences(400, seed=1)]
    asked = config(
        place, "several", data=write_csv(place / "several.csv", rows), epochs=20, learning_rate=1e-2, early_stopping=0
    )
    end = trained(pool, asked, place)
    assert end.phase == "done", end.error
    labels = saved(place, "several", "label_map.json")
    assert labels["task"] == "multi_label" and labels["classes"] == ["dog", "neg", "pos"]
    assert len(labels["thresholds"]) == 3  # type: ignore[arg-type]
    assert end.metrics["f1"] > 0.8 and end.metrics["micro_f1"] > 0.8


def test_numbers(pool: Forks, place: Path) -> None:
    rows = [(text, f"{1000 + 10 * len(text.split()) + 0.5}") for text, _ in sentences(400, seed=2)]
    asked = config(place, "numbers", data=write_csv(place / "numbers.csv", rows), epochs=10, learning_rate=1e-2)
    end = trained(pool, asked, place)
    assert end.phase == "done", end.error
    assert end.best and end.best.metric == "rmse"
    assert end.metrics["r2"] > 0.5 and end.metrics["rmse"] < 60
    assert saved(place, "numbers", "label_map.json")["mean"] == pytest.approx(1160, abs=30)


def test_frozen_layers_stay_as_they_were(pool: Forks, place: Path) -> None:
    from safetensors.torch import load_file

    end = trained(
        pool, config(place, "frozen", freeze_layers=1, class_weights=True, gradient_checkpointing=True), place
    )
    assert end.phase == "done", end.error
    assert end.plan["trained_parameters"] < end.plan["parameters"]
    before = load_file(place / "encoder" / "model.safetensors")
    after = load_file(place / "models" / "frozen" / "model.safetensors")
    same = {name for name in before if before[name].equal(after[f"distilbert.{name}"])}
    assert same == {name for name in before if name.startswith(("embeddings.", "transformer.layer.0."))}
    assert not after["distilbert.transformer.layer.1.ffn.lin1.weight"].equal(
        before["transformer.layer.1.ffn.lin1.weight"]
    )


def test_bfloat16_learns_too(pool: Forks, place: Path) -> None:
    end = trained(pool, config(place, "short", precision="bfloat16", epochs=8, learning_rate=1e-2), place)
    assert end.phase == "done" and end.metrics["accuracy"] >= 0.9


def test_the_number_format_is_measured(pool: Forks, place: Path) -> None:
    end = trained(pool, config(place, "auto", precision="auto", schedule="cosine", warmup=0.0), place)
    assert end.phase == "done"
    reason = str(end.plan["precision_reason"])
    assert end.plan["precision"] in ("float32", "bfloat16")
    assert "measured" in reason or "no fast shorter format" in reason


def test_training_ends_early_when_nothing_gets_better(pool: Forks, place: Path) -> None:
    rows = [(text, "ab"[i % 7 % 2]) for i, (text, _) in enumerate(sentences(200, seed=3))]  # nothing to learn
    asked = config(
        place, "early", data=write_csv(place / "noise.csv", rows), epochs=50, early_stopping=2, evaluations=2
    )
    end = trained(pool, asked, place)
    assert end.phase == "done" and end.step < end.total_steps
    assert "ended early" in end.detail


def test_no_rows_to_judge(pool: Forks, place: Path) -> None:
    end = trained(pool, config(place, "unjudged", validation_size=0.0, test_size=0.0), place)
    assert end.phase == "done" and end.best is None and end.metrics == {}
    assert "nothing is known of its quality" in (place / "models" / "unjudged" / "README.md").read_text()


def test_one_row_per_class_trains(pool: Forks, place: Path) -> None:
    data = write_csv(place / "two.csv", [("great", "pos"), ("awful", "neg")])
    end = trained(pool, config(place, "two", data=data, text_column="text", label_column="label"), place)
    assert end.phase == "done", end.error


# --- what goes wrong ---


def test_a_loss_that_is_no_number_stops_the_run_and_says_why(pool: Forks, place: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    broken = tiny_encoder(place / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][10:] = torch.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    end = trained(pool, config(place, "nan", base=str(broken), checkpoint_steps=1), place)
    assert end.phase == "failed" and isinstance(end.error, Diverged)
    assert "step 1" in str(end.error) and "learning rate" in end.error.hint
    assert end.retry["learning_rate"] == pytest.approx(1e-3)
    assert checkpoints.newest(place / "models" / ".runs" / "nan") is None  # nothing of it was saved


@pytest.mark.parametrize(
    ("base", "says"),
    [("empty", "tokenizer|model"), ("pickle", "model"), ("foreign", "program code"), ("cut", "cannot be loaded")],
)
def test_a_base_model_that_cannot_be_used(pool: Forks, place: Path, tmp_path: Path, base: str, says: str) -> None:
    folder = tmp_path / base
    shutil.copytree(place / "encoder", folder)
    if base == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif base == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif base == "foreign":
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {"auto_map": {"AutoModel": "evil.Model"}}))
    else:
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])
    end = trained(pool, config(place, f"base-{base}", base=str(folder)), place)
    assert end.phase == "failed" and isinstance(end.error, BrokenFile | ModelNotFound), end.error
    assert end.error.hint


def rewritten(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The folder's weights after `change`."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize("masked", [False, True])
def test_a_base_without_some_of_its_layers_is_refused_not_filled_with_random_numbers(
    place: Path, pool: Forks, masked: bool
) -> None:
    folder = tiny_encoder(place / f"torn-{masked}", masked=masked)
    rewritten(folder, lambda held: {name: held[name] for name in held if "layer.1." not in name})
    end = trained(pool, config(place, f"torn-{masked}", base=str(folder)), place)
    assert end.phase == "failed" and isinstance(end.error, BrokenFile)
    assert "layer.1.attention.k_lin.bias and 15 more are missing" in str(end.error)
    assert "choose another model" in end.error.hint


def test_a_base_whose_layers_have_another_shape_is_refused(place: Path, pool: Forks) -> None:
    folder = tiny_encoder(place / "wide")
    rewritten(folder, lambda held: {n: w[:-1].clone() if n.endswith("ffn.lin1.bias") else w for n, w in held.items()})
    end = trained(pool, config(place, "wide", base=str(folder)), place)
    assert end.phase == "failed" and isinstance(end.error, BrokenFile)
    assert "lin1.bias is (63,) in the file, (64,) by config.json; 1 more do not fit" in str(end.error)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DebertaV2", "ModernBert", "Albert", "Electra"])
def test_a_base_that_guesses_masked_words_needs_no_head_of_its_own(tmp_path: Path, kind: str) -> None:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    own = {"embedding_size": 32, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1}
    made = getattr(transformers, f"{kind}Config")(vocab_size=50, **sizes, **own, eos_token_id=2)
    getattr(transformers, f"{kind}ForMaskedLM")(made).save_pretrained(tmp_path)
    model = load_model(tmp_path, LabelMap("single_label", ("a", "b", "c")))
    assert model.config.num_labels == 3


def test_a_base_model_that_is_nowhere() -> None:
    with pytest.raises(MultimodelError) as caught:
        list(base_folder("someone/encoder", Settings()))
    assert "switched off" in str(caught.value) and caught.value.hint


def test_too_many_frozen_layers(pool: Forks, place: Path) -> None:
    end = trained(pool, config(place, "ice", freeze_layers=9), place)
    assert isinstance(end.error, InvalidParameter) and "at most 2" in end.error.hint


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (MemoryError(), NotEnoughMemory),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), NotEnoughMemory),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), NotEnoughMemory),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64"), DiskFull),
        (OSError(28, "No space left on device"), DiskFull),
        (PermissionError(13, "Permission denied"), TrainingError),
        (KeyError("x"), Unexpected),
        (Diverged("nan"), Diverged),
    ],
)
def test_every_end_has_its_sentence(place: Path, raised: Exception, kind: type[Exception]) -> None:
    error = child.own_error(raised, place)
    assert type(error) is kind and str(error)
    assert error.hint or kind is Diverged


@pytest.mark.parametrize(
    ("error", "settings", "retry"),
    [
        (NotEnoughMemory("x"), {}, {"batch_size": 16, "gradient_accumulation": 2}),
        (NotEnoughMemory("x"), {"batch_size": 1}, {"gradient_checkpointing": True}),
        (NotEnoughMemory("x"), {"batch_size": 1, "gradient_checkpointing": True}, {}),
        (Diverged("x"), {"learning_rate": 3e-3}, {"learning_rate": 1e-3}),
        (DiskFull("x"), {}, {}),
    ],
)
def test_settings_to_try_again_with(
    tmp_path: Path, error: MultimodelError, settings: dict[str, object], retry: dict[str, object]
) -> None:
    asked = TrainConfig(data="d", name="n", **settings)  # type: ignore[arg-type]
    Order(asked, "", "", "", "").save(tmp_path)
    assert child.retry(error, tmp_path) == pytest.approx(retry)


def test_no_room_is_found_before_anything_is_written(tmp_path: Path) -> None:
    from multimodel.finetune.reporter import check_room

    check_room(tmp_path, 1)
    with pytest.raises(DiskFull, match="MB free") as caught:
        check_room(tmp_path, 1 << 60)
    assert "resume" in caught.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which bounds the memory of another process")
def test_out_of_memory_in_training_says_which_setting_to_lower(pool: Forks, place: Path, tmp_path: Path) -> None:
    import resource

    words = " ".join(["great", "film"] * 31)
    rows = [(f"{words} {i}", "ab"[i % 2]) for i in range(1100)]
    wide = tiny_encoder(tmp_path / "wide", layers=4, width=128)
    data = write_csv(tmp_path / "long.csv", rows)
    folder = ordered(config(place, "large", data=data, base=str(wide), batch_size=1024, epochs=1), settings_in(place))
    pid = pool.start(folder)
    usual = psutil.Process(pid).memory_info().vms
    resource.prlimit(pid, resource.RLIMIT_AS, (usual + (600 << 20), usual + (600 << 20)))
    assert pool.wait() == 1
    end = fold(TrainUpdate("large"), Reader(folder).read())
    assert end.phase == "failed" and isinstance(end.error, NotEnoughMemory), end.error
    assert "batch size" in end.error.hint
    assert end.retry == {"batch_size": 512, "gradient_accumulation": 2}


# --- events and checkpoints ---


def test_events_fold_into_the_run_and_a_resume_takes_back_what_was_lost(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.phase("training")
    writer.write("plan", values={"total_steps": 10, "epochs": 2})
    for step in (1, 2, 3):
        writer.write("points", step=step, values={"loss": float("nan") if step == 2 else 1.0 / step})
    best = {"step": 3, "metric": "f1", "value": 0.5}
    writer.write("evaluation", step=3, metrics={"f1": 0.5}, best=best)
    update = fold(TrainUpdate("x"), Reader(tmp_path).read())
    assert [p.step for p in update.curves["loss"]] == [1, 3] and update.best and update.best.step == 3
    writer.write("resumed", step=2)
    update = fold(TrainUpdate("x"), Reader(tmp_path).read())
    assert [p.step for p in update.curves["loss"]] == [1] and update.best is None and update.epoch == 0.4
    writer.end("failed", error=DiskFull("full", hint="free some"))
    update = fold(TrainUpdate("x"), Reader(tmp_path).read())
    assert isinstance(update.error, DiskFull) and update.error.hint == "free some" and update.ended


def test_a_reader_waits_for_whole_lines(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    assert reader.read() == []
    Writer(tmp_path).log("one")
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"kind":"log","text":"tw')
    assert [event["text"] for event in reader.read()] == ["one"]
    Writer(tmp_path).log("three")  # the next writer ends the line that a kill cut
    assert [event["text"] for event in reader.read()] == ["three"]


def test_checkpoints_count_when_sealed_and_the_best_stays(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 20):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_text(f"weights {step}")
        checkpoints.seal(folder)
    checkpoints.prune(tmp_path, best=2)
    assert [checkpoints.step_of(path) for path in checkpoints.all_of(tmp_path)] == [2, 4, 20]
    (tmp_path / "checkpoint-20" / "model.safetensors").unlink()
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-4"
    assert not (tmp_path / "checkpoint-20").exists()


# --- LoRA, several processes ---


@needs("peft")
def test_lora_trains_few_weights_and_leaves_a_plain_model(pool: Forks, place: Path) -> None:
    from safetensors.torch import load_file

    end = trained(pool, config(place, "lora", lora_rank=4, epochs=12, learning_rate=1e-2), place)
    assert end.phase == "done", end.error
    assert end.plan["trained_parameters"] < end.plan["parameters"] / 2
    assert end.metrics["accuracy"] >= 0.7, "one answer to everything is right for half"
    names = set(load_file(place / "models" / "lora" / "model.safetensors"))
    assert "distilbert.transformer.layer.0.attention.q_lin.weight" in names
    assert not [name for name in names if "lora" in name]


@pytest.mark.slow
def test_two_processes_train_one_model(place: Path) -> None:
    settings = settings_in(place)
    ordered(config(place, "together", epochs=6, batch_size=8, early_stopping=0), settings)
    command = Jobs(settings).launch_command("together", 2)
    assert command[0] == "torchrun"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *command[1:]],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    end = fold(TrainUpdate("together"), Reader(place / "models" / ".runs" / "together").read())
    assert end.phase == "done", done.stderr[-3000:]
    assert (end.step, end.total_steps) == (90, 90)  # 240 rows, 16 a step in two processes, six times
    assert end.samples_per_second and end.metrics["rows"] == 30
    gpus = Jobs(settings).launch_command("together", 4, gpus=True, machines=2, rank=1, address="10.0.0.1")
    where = "--num_processes 8 --num_machines 2 --machine_rank 1 --main_process_ip 10.0.0.1 --main_process_port 29500"
    assert where in " ".join(gpus)
    gpus = Jobs(settings).launch_command("together", 4, gpus=True)
    assert gpus[:4] == ["accelerate", "launch", "--multi_gpu", "--num_processes"]


@pytest.mark.slow
def test_two_machines_train_one_model(place: Path) -> None:
    settings = settings_in(place)
    ordered(config(place, "apart", epochs=3, batch_size=8, early_stopping=0), settings)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    jobs = Jobs(settings)
    with pytest.raises(InvalidParameter, match="find each other"):
        jobs.launch_command("apart", 1, machines=2)
    machines = []
    for rank in (0, 1):
        _, *options = jobs.launch_command("apart", 1, machines=2, rank=rank, address=address)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MULTIMODEL_TRACKING": "false"}
        command = [sys.executable, "-m", "torch.distributed.run", *options]
        machines.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        said = [machine.communicate(timeout=300)[1] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    end = fold(TrainUpdate("apart"), Reader(place / "models" / ".runs" / "apart").read())
    assert end.phase == "done", said[0][-3000:]
    assert (end.step, end.total_steps) == (45, 45)  # 240 rows, 16 a step on two machines, three times


def test_a_data_set_as_a_table_is_the_same_again() -> None:
    for task, labels in (
        ("single_label", ("a,b", "c")), ("multi_label", (("a", "b"), ("c",))), ("regression", (0.1, -2e-05)),
    ):  # fmt: skip
        data = Dataset(("x", "y"), labels, ("train", "test"), (4, 9), task, "s")  # type: ignore[arg-type]
        mapping = guess(as_table(data), text="text", label="label", split="split", task=task)
        again = dataset(as_table(data), mapping, "s")
        assert (again.texts, again.labels, again.splits, again.rows) == (
            data.texts,
            data.labels,
            data.splits,
            data.rows,
        )


def test_rows_that_judge_and_are_trained_on_are_counted() -> None:
    from multimodel.finetune.judging import trained_on

    texts, splits = ("One two", "three", "one  TWO", "four"), ("train", "train", "test", "test")
    data = Dataset(texts, ("a",) * 4, splits, (1, 2, 3, 4))
    assert trained_on(data, "test") == 1 and trained_on(data, "validation") == 0
