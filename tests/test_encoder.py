"""The built-in encoder: its files fit together, and the pipeline that makes them works from end to end."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer

from encoder import batches, card, evaluate, text, train
from encoder.model import ID, NO_TOPIC, SPECIAL, Learner, build, train_tokenizer, waves
from guide.parallel import Exchange

from .support import ROOT

ASSETS = ROOT / "assets" / "encoder"
SENTENCES = ("The soup was cold.", "Where is my parcel, please?", "i can't log in")
SMALL = text.Corpus(
    topics=(
        text.Topic("praise", "words", ("good", "lovely", "superb", "fine")),
        text.Topic("soup", "prose", ("The soup was hot.", "We ate soup with bread.", "Bread goes with soup.")),
        text.Topic("login", "guide", ("How do I log in?", "where is the login")),
    ),
    loose=("It rained all day.", "The bus was late again."),
    withheld=("The soup was good.",),
)
RECIPE = train.Recipe(minutes=0.001, threads=1, width=64, layers=1, vocabulary=120)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tokenizer() -> Tokenizer:
    return train_tokenizer(train.tokenizer_texts(SMALL), RECIPE.vocabulary)


@pytest.mark.skipif(not ASSETS.is_dir(), reason="assets/encoder is made by python -m encoder.train")
class TestFiles:
    def test_the_weights_are_small_and_in_half_precision(self) -> None:
        weights = ASSETS / "model.safetensors"
        assert weights.stat().st_size <= 16_000_000
        with safe_open(weights, "pt") as tensors:
            assert {tensors.get_tensor(name).dtype for name in tensors.keys()} == {torch.float16}  # noqa: SIM118

    def test_they_load_in_single_precision(self) -> None:
        from transformers import AutoModelForSequenceClassification

        network = AutoModelForSequenceClassification.from_pretrained(ASSETS, num_labels=3)
        assert network.dtype == torch.float32
        assert type(network).__name__ == "DistilBertForSequenceClassification"

    def test_the_tokenizer_fits_the_network(self) -> None:
        from transformers import AutoConfig, AutoTokenizer

        tokenizer, settings = AutoTokenizer.from_pretrained(ASSETS), AutoConfig.from_pretrained(ASSETS)
        assert len(tokenizer) == settings.vocab_size
        assert tokenizer.pad_token_id == settings.pad_token_id == ID["[PAD]"]
        assert tokenizer.model_max_length == settings.max_position_embeddings
        assert set(tokenizer("a word").keys()) == {"input_ids", "attention_mask"}

    def test_a_text_survives_the_tokenizer(self) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(ASSETS)
        for sentence in SENTENCES:
            ids = tokenizer(sentence)["input_ids"]
            assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
            assert tokenizer.unk_token_id not in ids
            again = tokenizer.decode(ids, skip_special_tokens=True)
            assert again.replace(" ", "") == sentence.lower().replace(" ", "")
        assert tokenizer("CAFÉ")["input_ids"] == tokenizer("cafe")["input_ids"]
        assert len(tokenizer("word " * 900, truncation=True)["input_ids"]) == 512

    def test_fill_mask_gives_probabilities(self) -> None:
        from transformers import pipeline

        fill = pipeline("fill-mask", model=str(ASSETS), device="cpu")
        guesses = fill("please cancel my [MASK]", top_k=5)
        assert len({guess["token_str"] for guess in guesses}) == 5
        assert all(0 < guess["score"] < 1 for guess in guesses)
        assert sum(guess["score"] for guess in guesses) <= 1 + 1e-5
        assert [guess["score"] for guess in guesses] == sorted((g["score"] for g in guesses), reverse=True)

    def test_the_longest_text_gives_finite_numbers(self) -> None:
        from transformers import AutoModelForMaskedLM

        network = AutoModelForMaskedLM.from_pretrained(ASSETS).eval()
        with torch.no_grad():
            scores = network(torch.randint(5, network.config.vocab_size, (1, 512))).logits
        assert torch.isfinite(scores).all()

    def test_the_card_is_that_of_these_files(self) -> None:
        written = (ASSETS / "README.md").read_text("utf-8")
        training = json.loads((ASSETS / "training.json").read_text("utf-8"))
        with safe_open(ASSETS / "model.safetensors", "pt") as tensors:
            parameters = sum(tensors.get_tensor(name).numel() for name in tensors.keys())  # noqa: SIM118
        assert f"A DistilBERT of {parameters / 1e6:.2f} million parameters" in written
        assert f"{training['steps']} steps" in written
        for task in evaluate.ours():
            row = f"| {task.name} | {len(task.labels())} | {len(task.train):,} | {len(task.test):,} |"
            assert re.search(re.escape(row) + r" [\d.]+ \| [\d.]+ \| [\d.]+ \|", written)

    def test_what_it_learned_shows(self) -> None:
        """A masked word is guessed better than by chance from the lines that training left out."""
        from transformers import AutoModelForMaskedLM

        network = AutoModelForMaskedLM.from_pretrained(ASSETS)
        tokenizer = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))
        found = evaluate.masked_words(network, tokenizer, text.load().withheld[:150])
        assert found.tokens > 150
        assert found.right > 2 * found.commonest
        assert found.top_five > found.right


class TestText:
    def test_labels_and_test_rows_are_never_trained_on(self) -> None:
        corpus = text.load()
        seen = set(corpus.texts()) | set(corpus.withheld)
        for name in text.NAMES:
            rows = text.rows(name)
            test = {row.text for row in rows if text.in_test(row.text)}
            assert 0.2 < len(test) / len(rows) < 0.3
            assert not test & seen
            assert {row.text for row in rows} - test <= seen
            assert {row.label for row in rows if text.in_test(row.text)} == {row.label for row in rows}

    def test_withheld_lines_are_left_out(self) -> None:
        corpus = text.load()
        assert len(corpus.withheld) > 300
        lines = {line for topic in corpus.topics if topic.kind != "words" for line in topic.texts} | set(corpus.loose)
        assert not set(corpus.withheld) & lines

    def test_the_locked_questions_of_the_guide_are_not_read(self) -> None:
        with open(ROOT / "guide" / "tests" / "locked_a.tsv", encoding="utf-8", newline="") as file:
            locked = {field for row in csv.reader(file, delimiter="\t") for field in row if len(field.split()) > 6}
        assert len(locked) > 50
        seen = set(text.load().texts())
        assert len(locked & seen) < len(locked) / 20  # a few coincide, as the guide's card says

    def test_every_block_has_enough_in_it(self) -> None:
        for topic in text.written():
            assert len(topic.texts) == len(set(topic.texts)), topic.name
            assert len(topic.texts) >= (10 if topic.kind == "words" else 5), topic.name

    def test_the_documentation_comes_without_code(self) -> None:
        paragraphs = list(text.documents())
        assert len(paragraphs) > 10
        assert not any("```" in paragraph or "python -m pip" in paragraph for paragraph in paragraphs)


class TestBatches:
    def test_whole_words_are_masked(self, tokenizer: Tokenizer) -> None:
        rng, masked = random.Random(1), 0
        for _ in range(50):
            encoding = tokenizer.encode("unseenwords are cut into pieces")
            line = batches.mask(encoding, 0.3, tokenizer.get_vocab_size(), rng)
            for span in batches.word_spans(encoding):
                assert len({line.targets[place] == NO_TOPIC for place in span}) == 1
                masked += all(line.ids[place] == ID["[MASK]"] for place in span)
            assert all(target in (NO_TOPIC, right) for target, right in zip(line.targets, encoding.ids, strict=True))
            assert line.targets[0] == line.targets[-1] == NO_TOPIC
        assert 50 < masked < 150

    def test_every_text_has_something_to_predict(self, tokenizer: Tokenizer) -> None:
        line = batches.mask(tokenizer.encode("soup"), 0.01, tokenizer.get_vocab_size(), random.Random(0))
        assert any(target != NO_TOPIC for target in line.targets)

    def test_a_text_without_words_has_nothing_to_predict(self, tokenizer: Tokenizer) -> None:
        line = batches.mask(tokenizer.encode(""), 0.5, tokenizer.get_vocab_size(), random.Random(0))
        assert line.targets == [NO_TOPIC, NO_TOPIC]

    def test_batches_are_padded_and_carry_topics(self, tokenizer: Tokenizer) -> None:
        source = batches.Source(SMALL, 1, replace(RECIPE.mix, tokens=64))
        seen = set()
        for ids, targets, topics in islice(batches.stream(source, tokenizer), 40):
            assert ids.shape == targets.shape and len(ids) == len(topics)
            assert ((targets == NO_TOPIC) | (ids != ID["[PAD]"])).all()
            seen |= set(topics.tolist())
        assert seen == {NO_TOPIC, 0, 1, 2}

    def test_the_same_seed_draws_the_same(self, tokenizer: Tokenizer) -> None:
        one, same, other = (batches.Source(SMALL, seed, RECIPE.mix) for seed in (1, 1, 2))
        drawn = [[source.draw() for _ in range(30)] for source in (one, same, other)]
        assert drawn[0] == drawn[1] != drawn[2]


class TestModel:
    def test_the_losses_are_those_of_the_library(self, tokenizer: Tokenizer) -> None:
        learner = Learner(build(tokenizer.get_vocab_size(), 64, 1), 3).eval()
        ids, targets, topics = next(batches.stream(batches.Source(SMALL, 1, RECIPE.mix), tokenizer))
        masked, _ = learner.losses(ids, targets, topics)
        theirs = learner.network(ids, attention_mask=(ids != ID["[PAD]"]).long(), labels=targets).loss
        torch.testing.assert_close(masked, theirs)

    def test_without_topics_that_loss_is_nothing(self, tokenizer: Tokenizer) -> None:
        learner = Learner(build(tokenizer.get_vocab_size(), 64, 1), 3)
        ids, targets, topics = next(batches.stream(batches.Source(SMALL, 1, RECIPE.mix), tokenizer))
        _, topic = learner.losses(ids, targets, torch.full_like(topics, NO_TOPIC))
        assert topic.item() == 0

    def test_positions_differ_from_one_another(self) -> None:
        table = waves(512, 64)
        assert table.shape == (512, 64) and table.abs().max() <= 0.02
        assert torch.cdist(table, table).add(torch.eye(512)).min() > 1e-3

    def test_special_tokens_come_first(self, tokenizer: Tokenizer) -> None:
        assert [tokenizer.id_to_token(number) for number in range(len(SPECIAL))] == list(SPECIAL)
        assert tokenizer.encode("soup").tokens == ["[CLS]", "soup", "[SEP]"]


class TestTraining:
    def test_from_text_to_a_classifier(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        learner = train.new_learner(SMALL, tokenizer, RECIPE)
        exchange = Exchange.create(1, sum(parameter.numel() for parameter in learner.parameters()))
        source = batches.Source(SMALL, 1, replace(RECIPE.mix, tokens=128))
        progress = train.train(
            learner, islice(batches.stream(source, tokenizer), 30), replace(RECIPE, minutes=9), exchange
        )
        assert progress.steps == 30 and progress.texts > 30 and "step 30" in str(progress)
        train.save(learner.network, tokenizer, tmp_path)
        rows = [text.Row(f"{word} soup", label) for word, label in (("good", "+"), ("cold", "-")) for _ in range(16)]
        tuning = evaluate.Tuning(steps=60, most_epochs=60, batch=8, rate=2e-3)
        assert evaluate.finetune(tmp_path, evaluate.Task("soup", rows, rows), 1, tuning) == 1

    def test_learning_lowers_the_losses(self, tokenizer: Tokenizer) -> None:
        learner = train.new_learner(SMALL, tokenizer, RECIPE).eval()
        first = next(batches.stream(batches.Source(SMALL, 1, RECIPE.mix), tokenizer))
        before = [loss.item() for loss in learner.losses(*first)]
        exchange = Exchange.create(1, sum(parameter.numel() for parameter in learner.parameters()))
        train.train(learner, [first] * 25, replace(RECIPE, minutes=9), exchange)
        after = [loss.item() for loss in learner.losses(*first)]
        assert all(late < early for late, early in zip(after, before, strict=True))

    def test_it_stops_when_the_time_is_up(self, tokenizer: Tokenizer) -> None:
        learner = train.new_learner(SMALL, tokenizer, RECIPE)
        exchange = Exchange.create(1, sum(parameter.numel() for parameter in learner.parameters()))
        endless = batches.stream(batches.Source(SMALL, 1, RECIPE.mix), tokenizer)
        assert train.train(learner, endless, replace(RECIPE, minutes=1e-6), exchange).steps == 1

    def test_what_is_saved_is_what_was_trained(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        network = build(tokenizer.get_vocab_size(), 64, 1).eval()
        train.save(network, tokenizer, tmp_path)
        again = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
        ids = torch.tensor([tokenizer.encode(SENTENCES[0]).ids])
        torch.testing.assert_close(again(ids).logits, network(ids).logits, atol=5e-3, rtol=0)
        assert AutoTokenizer.from_pretrained(tmp_path)(SENTENCES[0])["input_ids"] == ids[0].tolist()


class TestEvaluation:
    def test_small_sets_are_read_more_often_than_large_ones(self) -> None:
        epochs = [evaluate.Tuning().epochs(rows) for rows in (10, 2_000, 100_000)]
        assert epochs == [12, 7, 4]

    def test_the_linear_model_knows_easy_words(self) -> None:
        rows = [text.Row(f"{word} number {i}", word) for i in range(20) for word in ("red", "blue")]
        assert evaluate.linear(evaluate.Task("colours", rows[:30], rows[30:])) == 1

    def test_public_sets_that_are_absent_are_left_out(self, tmp_path: Path) -> None:
        assert list(evaluate.public(tmp_path)) == []

    def test_each_public_set_is_read_as_it_comes(self, tmp_path: Path) -> None:
        files: dict[str, tuple[str, str]] = {
            "sst2/train.tsv": ('a "quoted film\t1\n', "utf-8"),
            "sst2/test.tsv": ("dull\t0\n", "utf-8"),
            "trec6/TREC.train.all": ("4 Who drew caf\xe9s ?\n", "iso-8859-1"),
            "trec6/TREC.test.all": ("5 How far ?\n", "iso-8859-1"),
            "sms_spam/sms.tsv": ("ham\tok\nham\tok\n" + "".join(f"ham\th{i}\nspam\ts{i}\n" for i in range(5)), "utf-8"),
            "ag_news/test.csv": ("".join(f'"{c}","T{i}","news, {i}"\n' for c in (1, 2) for i in range(5)), "utf-8"),
            "clinc150/data_full.json": (json.dumps({"train": [["hi", "greet"]], "test": [["yo", "greet"]]}), "utf-8"),
        }
        for name, (content, encoding) in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content, encoding)
        tasks = {task.name: task for task in evaluate.public(tmp_path)}
        assert list(tasks) == list(evaluate.READERS)
        assert tasks["sst2"].train == [text.Row('a "quoted film', "1")]
        assert tasks["trec6"].train == [text.Row("Who drew cafés ?", "4")]
        assert len(tasks["sms_spam"].train) == 8 and len(tasks["sms_spam"].test) == 3
        assert {row.text for row in tasks["ag_news"].train} <= {f"T{i}. news, {i}" for i in range(5)}
        assert tasks["clinc150"].labels() == ["greet"]

    def test_real_public_sets_have_their_published_sizes(self) -> None:
        if not card.TEXTCLF.is_dir():
            pytest.skip(f"needs {card.TEXTCLF}")
        sizes = {task.name: (len(task.train), len(task.test)) for task in evaluate.public(card.TEXTCLF)}
        published: dict[str, Any] = {"sst2": (6920, 1821), "trec6": (5452, 500), "clinc150": (15000, 4500)}
        assert sizes == sizes | published

    def test_the_card_says_who_is_ahead(self) -> None:
        task = evaluate.Task("soup", [text.Row("a", "x"), text.Row("b", "y")], [text.Row("c", "x")])
        results = [card.Result(task, 0.9, 0.5, 0.8), card.Result(replace(task, name="bread"), 0.7, 0.5, 0.8)]
        assert card.row(results[0]) == "| soup | 2 | 2 | 1 | 90.0 | 50.0 | 80.0 |"
        assert card.verdict(results).endswith("on 1 of 2: soup.")
        assert card.verdict(results[1:]).endswith("on 0 of 1: none.")
