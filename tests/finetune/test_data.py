"""Which column is what, who trains and who judges, what is wrong with the rows and how it is repaired."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from multimodel.errors import DataError, DownloadFailed, InvalidParameter
from multimodel.finetune import data as rows
from multimodel.finetune import sources
from multimodel.finetune.data import Dataset, Mapping, dataset, guess, normal, split
from multimodel.finetune.reading import paste
from multimodel.finetune.report import FIXES, Base, Finding, languages, report
from multimodel.finetune.tables import Table
from multimodel.finetune.types import CHOICES, HELP, RANGES, TYPES, TrainConfig
from multimodel.settings import ROOT, Settings


def made(pairs: list[tuple[str, object]], splits: list[str] | None = None, task: str = "single_label") -> Dataset:
    """A data set of (text, label) pairs."""
    texts, labels = zip(*pairs, strict=True)
    count = len(pairs)
    return Dataset(texts, labels, tuple(splits or [""] * count), tuple(range(1, count + 1)), task)  # type: ignore[arg-type]


def many(count: int = 60) -> list[tuple[str, object]]:
    return [(f"the text number {i}", "ab"[i % 2]) for i in range(count)]


def findings(data: Dataset) -> dict[str, Finding]:
    return {found.name: found for found in report(data).findings}


# --- the config ---


def test_every_parameter_has_a_line_of_help_and_numbers_have_a_range() -> None:
    values = TrainConfig(data="a", name="b").asdict()
    assert set(HELP) == set(values)
    assert set(RANGES) | set(CHOICES) <= set(values)
    numbers = {name for name, value in values.items() if type(value) in (int, float)}
    assert numbers <= set(RANGES)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"learning_rate": 3.0}, {"precision": "int8"}, {"batch_size": 10**6}, {"task": "x"}]
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        TrainConfig(data="a", name="b").merge(wrong)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("epochs", "x", "a whole number"),
        ("epochs", 1.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", None, "a whole number"),
        ("max_length", "64", "a whole number or None"),
        ("learning_rate", [1e-4], "a number or None"),
        ("seed", float("nan"), "a whole number"),
        ("warmup", float("nan"), "from 0 to 0.9"),
        ("class_weights", "no", "True or False"),
        ("fixes", "leaks", "a list of texts"),
        ("fixes", [1], "a list of texts"),
        ("data", None, "a text"),
        ("name", 3, "a text"),
        ("precision", ["auto"], "float32"),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: object, says: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^{name} is ") as caught:
        TrainConfig(**({"data": "a", "name": "b"} | {name: value}))  # type: ignore[arg-type]
    assert says in caught.value.hint


def test_every_type_of_a_parameter_is_known() -> None:
    kinds = {str(f.type).removesuffix(" | None"): f.name for f in fields(TrainConfig)}
    assert {name for kind, name in kinds.items() if kind not in TYPES} <= set(CHOICES)
    config = TrainConfig(data="a", name="b", epochs=3.0, learning_rate=np.float32(0.5e-3), seed=np.int64(7))  # type: ignore[arg-type]
    assert type(config.epochs) is int and type(config.learning_rate) is float and type(config.seed) is int


def test_a_config_survives_json_and_older_versions() -> None:
    config = TrainConfig(data=Path("a.csv"), name="b", fixes=["leaks"], epochs=7)  # type: ignore[arg-type]
    assert TrainConfig.of(config.asdict() | {"of_another_version": 1}) == config
    assert config.data == "a.csv"
    with pytest.raises(InvalidParameter, match="bogus"):
        config.merge({"bogus": 1})


# --- the mapping ---


def table(columns: tuple[str, ...], *cells: tuple[object, ...]) -> Table:
    return Table(columns, cells, tuple(range(1, len(cells) + 1)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        (("id", "review", "sentiment"), "review", "sentiment"),
        (("Label", "Text"), "Text", "Label"),
        (("message_text", "user_intent"), "message_text", "user_intent"),
    ],
)
def test_columns_are_found_by_name(columns: tuple[str, ...], text: str, label: str) -> None:
    found = guess(table(columns, *[tuple(f"{c}{i}" for c in columns) for i in range(9)]))
    assert (found.text, found.label) == (text, label)
    assert "its name says so" in found.reasons[0]


def test_columns_are_found_by_what_they_hold() -> None:
    cells = [(str(i), f"a longer text that goes on, {i}", "xy"[i % 2]) for i in range(30)]
    found = guess(table(("column 1", "column 2", "column 3"), *cells))
    assert (found.text, found.label) == ("column 2", "column 3")
    assert "2 different values" in found.reasons[1]


def test_columns_a_person_names_are_used_and_must_exist() -> None:
    whole = table(("a", "b"), ("x", "1"), ("y", "2"))
    assert guess(whole, text="b", label="a").text == "b"
    with pytest.raises(DataError, match="no column 'c'") as caught:
        guess(whole, text="c")
    assert "'a', 'b'" in caught.value.hint
    with pytest.raises(DataError, match="both"):
        guess(whole, text="a", label="a")
    with pytest.raises(DataError, match="no labels"):
        guess(table(("text",), ("x",)))


@pytest.mark.parametrize(
    ("cells", "task"),
    [
        (["a", "b", "a"] * 10, "single_label"),
        (["a|b", "b", "a", "a|b|c", "c"] * 6, "multi_label"),
        ([("a", "b"), (), ("b",)] * 5, "multi_label"),
        ([f"{i / 7:.3f}" for i in range(60)], "regression"),
        ([str(i % 5) for i in range(60)], "single_label"),
        (["Paris, France", "Rome, Italy", "Oslo, Norway"] * 8, "single_label"),
    ],
)
def test_the_task_follows_from_the_labels(cells: list[object], task: str) -> None:
    found = guess(table(("text", "label"), *[(f"t{i}", cell) for i, cell in enumerate(cells)]))
    assert found.task == task


def test_labels_of_several_and_numbers() -> None:
    whole = table(("text", "label"), ("a", "x;y"), ("b", ""), ("c", "y"))
    several = dataset(whole, Mapping("text", "label", task="multi_label", separator=";"))
    assert several.labels == (("x", "y"), (), ("y",))
    numbers = dataset(
        table(("text", "label"), ("a", "1.5"), ("b", "2,5"), ("c", "much")), Mapping("text", "label", task="regression")
    )
    assert numbers.labels == (1.5, 2.5, "")
    assert any("line 3" in note for note in numbers.notes)


# --- the split ---


def test_the_split_is_stratified_and_seeded() -> None:
    data = made([(f"text {i}", "rare" if i % 10 == 0 else "often") for i in range(500)])
    done = split(data, validation=0.2, test=0.1, seed=1)
    counts = Counter(zip(done.splits, done.labels, strict=True))
    assert counts[("validation", "rare")] == 10 and counts[("test", "rare")] == 5
    assert counts[("validation", "often")] == 90 and counts[("test", "often")] == 45
    assert done == split(data, validation=0.2, test=0.1, seed=1)
    assert done.splits != split(data, validation=0.2, test=0.1, seed=2).splits


def test_equal_texts_never_stand_on_both_sides() -> None:
    data = made([(f"  Text {i % 40} ".upper() if i % 3 else f"text {i % 40}", "ab"[i % 2]) for i in range(400)])
    done = split(data, validation=0.3, test=0.3, seed=3)
    sides: dict[str, set[str]] = {}
    for text, part in zip(done.texts, done.splits, strict=True):
        sides.setdefault(normal(text), set()).add(part)
    assert all(len(parts) == 1 for parts in sides.values())
    assert len({next(iter(parts)) for parts in sides.values()}) == 3


def test_a_class_of_one_row_trains() -> None:
    done = split(made([*many(20), ("the only one", "single")]), validation=0.5, test=0.5, seed=0)
    assert done.splits[-1] == "train"


def test_a_split_of_ones_own_is_kept_and_the_missing_one_is_cut_from_training() -> None:
    data = made(many(100), ["train"] * 80 + ["test"] * 20)
    done = split(data, validation=0.1, test=0.1, seed=0)
    assert done.splits[80:] == ("test",) * 20
    assert rows.in_splits(done) == {"train": 72, "validation": 8, "test": 20}


def test_numbers_are_stratified_by_size() -> None:
    data = made([(f"text {i}", float(i)) for i in range(200)], task="regression")
    judged = split(data, validation=0.2, test=0.0, seed=0).of("validation")
    values = [label for label in judged.labels if isinstance(label, float)]
    assert len(values) == 40 and sum(value < 100 for value in values) == 20


# --- findings and repairs ---


def test_clean_data_has_no_finding() -> None:
    assert findings(made(many())) == {}


@pytest.mark.parametrize(
    ("pairs", "splits", "name", "left"),
    [
        ([*many(), ("  ", "a")], None, "empty_texts", 60),
        ([*many(), ("x", "")], None, "missing_labels", 60),
        ([*many(), ("The  text NUMBER 3", "b")], None, "duplicates", 60),
        ([*many(), ("the text number 3", "a")], None, "conflicting_labels", 59),
        ([*many(), ("the text number 3", "a"), ("the text number 3", "a")], None, "conflicting_labels", 61),
        ([*many(), ("the text number 3", "b")], ["train"] * 60 + ["test"], "leaks", 60),
        ([*many(), ("x", "seldom")], None, "rare_classes", 60),
        ([*many(), ("x", "new")], ["train"] * 60 + ["test"], "unseen_classes", 60),
    ],
)
def test_a_finding_and_its_repair(
    pairs: list[tuple[str, object]], splits: list[str] | None, name: str, left: int
) -> None:
    data = made(pairs, splits)
    found = findings(data)[name]
    assert found.title and found.detail and found.fix == name
    repaired = FIXES[found.fix](data)
    assert len(repaired) == left
    assert name not in findings(repaired)
    assert len(data) == len(pairs)  # the data set itself is a value


def test_one_class_written_in_several_ways() -> None:
    data = made([*many(), ("one more", "A"), ("and one", "a ")])
    assert "'a'" in findings(data)["label_twins"].title
    repaired = FIXES["label_twins"](data)
    assert repaired.classes == ("a", "b")


def test_findings_that_settings_answer() -> None:
    assert findings(made([(f"text {i}", "a" if i % 10 else "b") for i in range(200)]))["imbalance"].settings
    long = made([*many(), ("word " * 900, "a")])
    assert "longer than the 512 tokens" in findings(long)["long_texts"].title
    assert findings(made([(f"text {i}", "a") for i in range(60)]))["one_class"].severity == "error"


def test_the_report_counts_with_a_tokenizer_and_recommends_with_reasons() -> None:
    seen = report(made(many(2000)), Base(lambda texts: [len(text) for text in texts], 64))
    assert not seen.lengths.estimated and seen.lengths.longest == len("the text number 1999")
    assert seen.recommended["max_length"][0] == 24
    assert all(reason for _, reason in seen.recommended.values())
    assert seen.languages == {"English": 1.0}
    small = report(made(many(2000)), Base(small=True)).recommended["epochs"]
    assert small[0] > seen.recommended["epochs"][0] and "small base models" in small[1]


def test_several_labels_and_numbers_are_looked_at_too() -> None:
    several = made([(f"text {i}", ("a", "b")[: i % 3]) for i in range(60)], task="multi_label")
    assert findings(several)["no_labels"].fix == ""
    numbers = report(made([(f"text {i}", float(i)) for i in range(60)], task="regression"))
    assert numbers.range == (0.0, 59.0) and numbers.classes == {}
    for name, fix in FIXES.items():
        assert fix(several).task == "multi_label", name


def test_copies_are_kept_together_by_the_splits_of_the_app_only() -> None:
    pairs = [*many(), ("the text number 3", "b")]
    assert "both sides" in findings(made(pairs))["duplicates"].detail
    own = findings(made(pairs, ["train"] * 60 + ["test"]))
    assert own["leaks"] and "both sides" not in own["duplicates"].detail


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (made([(f"text {i}", f"class {i // 2}") for i in range(100)]), "validation and test"),
        (made([(f"text {i}", float(i)) for i in range(50)], task="regression"), "validation and test"),
        (made(many(), ["train"] * 10 + ["test"] * 50), "validation"),
        (made(many(), ["train"] * 10 + ["validation"] * 50), "test"),
        (made([("same", "a"), ("same", "b")] * 30), "validation and test"),
    ],
)
def test_a_split_that_leaves_nothing_to_judge_is_said(data: Dataset, missing: str) -> None:
    found = findings(data)["nothing_to_judge"]
    assert found.severity == "warning" and found.title.endswith(f"no rows for {missing}.")
    assert "bring rows of your own" in found.detail


def test_a_split_with_rows_to_judge_on_is_not_warned_of() -> None:
    whole = split(made(many()), validation=0.2, test=0.2, seed=0)
    assert not {"nothing_to_judge"} & {*findings(whole), *findings(made(many(), ["train"] * 60))}
    assert "nothing_to_judge" not in findings(made([("", 1.0), ("a", "")], task="regression"))  # nothing at all


def test_one_is_not_written_as_several() -> None:
    one = report(made([("a text", "a")]), Base(lambda texts: [1]))
    assert "only one row" in {found.name: found for found in one.findings}["few_rows"].title
    reasons = " ".join(reason for _, reason in one.recommended.values())
    assert "1 row to" in reasons and "about 1 step an" in reasons and "at most 1 token" in reasons
    assert "tokens" not in reasons and "steps" not in reasons
    new = findings(made([*many(), ("x", "new")], ["train"] * 60 + ["test"]))["unseen_classes"]
    assert new.title.startswith("1 row of validation or test has classes")


# --- languages ---

SENTENCES = {
    "English": """
        Where is my parcel? / It was cold in there. / I want my money back. / The hotel was so dirty! / Nobody answers
        the phone. / Late again, very annoying. / Can I change my address? / What a great film! / Works as described.
        / In this case I will cancel. / Cheap and nasty. / Good value for money / We were in a hurry / Cancel my
        subscription / The battery died after two days.
    """,
    "German": """
        In dieser Farbe ist nichts mehr da. / Wo ist mein Paket? / Das war in Ordnung. / Ich will mein Geld zurück. /
        Was war denn hier los? / Die Lieferung kam zu spät. / In der Packung fehlt die Anleitung. / Sehr guter Film! /
        Bitte Adresse ändern. / Der Akku ist kaputt. / Leider nie wieder. / Konto gesperrt, was nun? / Alles bestens,
        danke. / Mir hat es gefallen / Rechnung kam doppelt / Schlechter Service
    """,
    "Dutch": """
        Waar is mijn pakket? / Het was koud in de kamer. / Ik wil mijn geld terug. / Wat een mooie film! / De levering
        was te laat. / Slechte service, nooit meer. / Kan ik mijn adres wijzigen? / In de doos zat niets. / Die
        telefoon werkt niet. / Was dit wel de bedoeling? / Heel lekker gegeten / Rekening klopt niet / Snel geleverd,
        bedankt! / Mijn kaart is kwijt / Batterij na twee dagen leeg
    """,
    "French": """
        Livraison en retard / Où est mon colis ? / Je veux être remboursé. / Le film est très long. / La batterie ne
        tient pas. / Service client nul / Trop cher pour la qualité / Comment changer mon adresse ? / J'adore ce
        restaurant. / On a bien mangé. / Carte bloquée, que faire ? / Produit conforme, merci. / C'est une honte / Ma
        commande est arrivée cassée / Un vrai plaisir
    """,
    "Spanish": """
        La comida estaba fría / ¿Dónde está mi paquete? / Quiero mi dinero de vuelta. / El envío llegó tarde. / Muy
        buena película / No funciona la tarjeta. / La película es demasiado larga / Un servicio pésimo / ¿Puedo
        cambiar la dirección? / Todo perfecto, gracias. / Me encanta este hotel. / No lo compren / Mala calidad / El
        pedido vino roto / He perdido mi tarjeta
    """,
    "Italian": """
        Dove è il mio pacco? / Il cibo era freddo / Voglio indietro i miei soldi. / La consegna è in ritardo. / Un
        film bellissimo / Non funziona la carta. / Posso cambiare indirizzo? / Servizio pessimo, mai più. / Tutto
        perfetto, grazie. / La camera era sporca. / Prodotto arrivato rotto / Ottimo prezzo / Che delusione! / Ho
        perso la carta / Non lo comprate
    """,
    "Portuguese": """
        A comida estava fria / Onde está a minha encomenda? / Quero o meu dinheiro de volta. / A entrega está
        atrasada. / Um filme muito bom / O cartão não funciona. / Posso mudar o endereço? / Péssimo atendimento, nunca
        mais. / Tudo perfeito, obrigado. / O quarto estava sujo. / Produto chegou quebrado / Ótimo preço / Que
        decepção! / Perdi o meu cartão / Não comprem
    """,
}
"""Short sentences, with slashes between them."""


def sentences(language: str) -> list[str]:
    return " ".join(SENTENCES[language].split()).split(" / ")


@pytest.mark.parametrize("language", SENTENCES)
def test_short_sentences_are_told_apart(language: str) -> None:
    texts = sentences(language)
    alone = [languages([text]) for text in texts]
    assert len(texts) >= 15 and all(found in ({language: 1.0}, {}) for found in alone)  # never another one
    assert alone.count({language: 1.0}) >= 0.8 * len(texts)
    assert languages(texts) == {language: 1.0}


def test_languages_of_mixed_texts_have_their_shares() -> None:
    shares = languages([text for language in SENTENCES for text in sentences(language)])
    assert shares.keys() == SENTENCES.keys() and sum(shares.values()) == pytest.approx(1, abs=0.04)
    assert all(0.1 < share < 0.18 for share in shares.values())


def test_what_tells_nothing_counts_for_no_language() -> None:
    german, dutch = sentences("German")[:3], sentences("Dutch")[:2]
    assert languages(["In was", "film", "123", "?"]) == {}  # words of three languages, of none, no words
    assert languages(["In was", *german]) == languages(german) == {"German": 1.0}
    assert languages(["In was", *german, *dutch]) == {"German": 0.67, "Dutch": 0.33}
    assert languages(["In was", *german[:2], *dutch]) == {"German": 0.5, "Dutch": 0.5}  # as many clear texts of each
    assert languages(["Mój pies śpi pod łóżkiem"]) == {"another language": 1.0}


# --- sources ---


def write(tmp_path: Path, name: str = "data.csv", count: int = 60) -> str:
    path = tmp_path / name
    path.write_text("text,label\n" + "".join(f"the text number {i},{'ab'[i % 2]}\n" for i in range(count)))
    return str(path)


def test_a_config_gives_labelled_split_repaired_rows(tmp_path: Path) -> None:
    source = write(tmp_path)
    Path(source).write_text(Path(source).read_text() + ",a\nthe text number 3,a\n")
    config = TrainConfig(data=source, name="x", fixes=("conflicting_labels",), test_size=0.2)
    data = sources.prepared(config, Settings())
    assert len(data) == 59 and rows.in_splits(data).keys() == {"train", "validation", "test"}


def test_files_of_their_own_for_validation_and_test(tmp_path: Path) -> None:
    train, dev, test = write(tmp_path), write(tmp_path, "v.csv", 12), write(tmp_path, "t.csv", 14)
    config = TrainConfig(data=train, name="x", validation_data=dev, test_data=test)
    assert rows.in_splits(sources.prepared(config, Settings())) == {"train": 60, "validation": 12, "test": 14}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("text,label\na,x\nb,x\nc,x\nd,x\n", "same label"),
        ("text,label\na,x\n", "rows to train on"),
        ("text,label\n" + "".join(f"t{i},l{i}\n" for i in range(30)), "classes"),
        ("text,label\n,x\n,y\n", "rows to train on"),
    ],
)
def test_data_that_cannot_train_is_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "data.csv").write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        config = TrainConfig(data=str(tmp_path / "data.csv"), name="x", text_column="text", label_column="label")
        sources.prepared(config, Settings())
    assert caught.value.hint


def test_a_label_called_na_is_a_label(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(f"t{i},{('NA', 'null')[i % 2]}\n" for i in range(40)))
    data = sources.prepared(TrainConfig(data=str(tmp_path / "data.csv"), name="x"), Settings())
    assert data.classes == ("NA", "null")


def test_a_source_there_is_none_of() -> None:
    with pytest.raises(DataError, match="no data called"):
        sources.table("nothing here", Settings())
    with pytest.raises(DownloadFailed, match="switched off"):
        sources.table("someone/something", Settings())
    with pytest.raises(DataError, match="no repair"):
        sources.finished(made(many()), TrainConfig(data="x", name="y", fixes=("magic",)))


@pytest.mark.parametrize("name", sorted(sources.samples(Settings())) or ["none"])
def test_the_sample_sets_are_ready_to_train(name: str) -> None:
    assert sources.samples(Settings()), "assets/datasets holds no sample set"
    data = sources.prepared(TrainConfig(data=name, name="x"), Settings())
    assert len(data) >= 600
    seen = report(data)
    assert not [found for found in seen.findings if found.severity == "error"]
    assert (ROOT / "assets" / "datasets" / name / "README.md").exists()


def test_a_data_set_of_the_hub_library(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    part = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    table = sources.of_splits(datasets.DatasetDict(train=part, test=part))
    assert table.rows[:3] == (("a", "pos", "train"), ("b", "neg", "train"), ("c", "", "train"))
    assert len(table.rows) == 6


def test_saved_rows_come_back_and_a_cut_file_is_refused(tmp_path: Path) -> None:
    data = split(made([("a\nb", ("x", "y")), ("über", ())], task="multi_label"), validation=0, test=0, seed=0)
    first = rows.save(data, tmp_path / "data.jsonl")
    assert rows.load(tmp_path / "data.jsonl") == data
    assert first == rows.save(data, tmp_path / "data.jsonl")
    path = tmp_path / "data.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError):
        rows.load(path)


def test_pasted_rows_become_a_data_set() -> None:
    table = paste("text,label\n" + "".join(f"row {i},{'xy'[i % 2]}\n" for i in range(20)))
    data = dataset(table, guess(table))
    assert data.counts == {"x": 10, "y": 10}
