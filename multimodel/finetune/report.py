"""What there is to know about a data set before training: figures, findings, and the repair of each finding.

A repair is a pure function from data set to data set; a page offers it as one click, a script by name.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .data import Dataset, in_splits, normal, split
from .types import TrainConfig

Severity = Literal["error", "warning", "note"]
FEW_ROWS = 50  # in all
FEW_OF_CLASS = 8
UNEVEN = 3.0  # times as many rows of the largest class as of the smallest
SHOWN = 20  # rows named in a finding
ESTIMATE = 1.35  # tokens a word of ordinary English, where no tokenizer counts
SPECIALS = 2  # tokens that an encoder puts around a text
DEFAULTS = TrainConfig(data="", name="")
WITHOUT = {  # splits that have no rows: what that means
    "validation": "Nothing then says which epoch is the best, so the last one is kept.",
    "test": "The final figures are then those of the rows by which the best epoch is chosen, and flatter.",
    "validation and test": "The run then ends without a figure that says how good the model is.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should know. `fix`: its name in FIXES, where there is a repair."""

    name: str
    severity: Severity
    title: str  # one sentence with the figures
    detail: str = ""  # why it matters, or what the repair does
    rows: tuple[int, ...] = ()  # some of them, as numbered in the source
    fix: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # training settings that answer it instead


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens per text."""

    median: int
    p95: int
    p99: int
    longest: int
    estimated: bool  # counted by words, because no tokenizer was at hand
    over: float  # share of texts longer than `limit`
    limit: int


@dataclass(frozen=True, slots=True)
class DataReport:
    """A data set at a glance."""

    rows: int
    splits: Mapping[str, int]
    classes: Mapping[str, int]  # rows by class; empty for numbers
    range: tuple[float, float] | None  # of the numbers
    lengths: Lengths
    languages: Mapping[str, float]  # share of a sample of texts by language, guessed from letters and common words
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    recommended: Mapping[str, tuple[Any, str]]  # setting: (value, reason)


Count = Callable[[Sequence[str]], Sequence[int]]
"""Tokens of each text, special ones included."""


@dataclass(frozen=True, slots=True)
class Base:
    """What a report has to know of the base model."""

    count: Count | None = None  # of its tokenizer
    limit: int = 512  # tokens it reads at most, where neither it nor its tokenizer says
    small: bool = False  # has read little


def report(data: Dataset, base: Base = Base()) -> DataReport:
    """Look at a data set, which is to train a base model."""
    lengths = _lengths(data.texts, base.count, base.limit)
    findings = tuple(found for look in LOOKS for found in look(data))
    findings = (*findings, *_length_finding(lengths))
    order = {"error": 0, "warning": 1, "note": 2}
    numbers = [label for label in data.labels if isinstance(label, float)]
    return DataReport(
        rows=len(data),
        splits=in_splits(data),
        classes=data.counts,
        range=(min(numbers), max(numbers)) if numbers else None,
        lengths=lengths,
        languages=languages(data.texts),
        findings=tuple(sorted(findings, key=lambda f: order[f.severity])),
        notes=data.notes,
        recommended=recommended(data, lengths, small=base.small),
    )


# --- lengths ---


def _lengths(texts: Sequence[str], count: Count | None, limit: int) -> Lengths:
    tokens = sorted(count(texts) if count else estimated_tokens(texts)) or [0]
    median, p95, p99 = (tokens[min(len(tokens) - 1, int(share * len(tokens)))] for share in (0.5, 0.95, 0.99))
    over = sum(n > limit for n in tokens) / len(tokens)
    return Lengths(median, p95, p99, tokens[-1], count is None, over, limit)


def estimated_tokens(texts: Sequence[str]) -> list[int]:
    """Tokens counted by words and, for scripts without blanks, by letters."""
    return [SPECIALS + max(round(len(t.split()) * ESTIMATE), len(t) // 6) for t in texts]


def _length_finding(lengths: Lengths) -> Iterator[Finding]:
    if lengths.over > 0:
        share = f"{lengths.over:.1%}" if lengths.over >= 0.001 else "A few"
        title = f"{share} of the texts are longer than the {lengths.limit} tokens the model reads."
        yield Finding("long_texts", "note", title, "Their ends are cut off.", settings={"max_length": lengths.limit})


# --- findings ---


def _few_rows(data: Dataset) -> Iterator[Finding]:
    if len(data) < FEW_ROWS:
        hint = "A classifier needs some dozens of rows of each class; the figures will be rough."
        title = "There is only one row." if len(data) == 1 else f"There are only {len(data)} rows."
        yield Finding("few_rows", "warning", title, hint)


def _empty(data: Dataset) -> Iterator[Finding]:
    texts = [i for i, text in enumerate(data.texts) if not text.strip()]
    if texts:
        title = f"{_many(texts, 'text is', 'texts are')} empty."
        yield _of_rows("empty_texts", "warning", title, "Such rows are left out.", data, texts)
    missing = [i for i, label in enumerate(data.labels) if label == ""]
    if missing:
        title = f"{_many(missing, 'row has', 'rows have')} no label."
        yield _of_rows("missing_labels", "warning", title, "Such rows are left out.", data, missing)
    none = [i for i, label in enumerate(data.labels) if label == ()]
    if none:
        title = f"{_many(none, 'text has', 'texts have')} none of the labels."
        yield Finding("no_labels", "note", title, "Such texts teach the model to say nothing.", _shown(data, none))


def _duplicates(data: Dataset) -> Iterator[Finding]:
    extra = [i for rows in _groups(data).values() for i in rows[1:] if len(_labels_of(data, rows)) == 1]
    if extra:
        title = f"{_many(extra, 'row repeats', 'rows repeat')} a text with the same label."
        why = "Copies weigh as much as new texts; the repair keeps the first."
        if not any(data.splits):
            why += " They never stand on both sides of the split."
        yield _of_rows("duplicates", "note", title, why, data, extra)


def _conflicts(data: Dataset) -> Iterator[Finding]:
    rows = [i for group in _groups(data).values() if len(_labels_of(data, group)) > 1 for i in group]
    if rows and data.task != "regression":
        title = f"{len(rows):,} rows have the same text as another but another label."
        why = "One of them is wrong. The repair keeps the label that most copies have; where none has most, none stays."
        yield _of_rows("conflicting_labels", "warning", title, why, data, rows)


def _leaks(data: Dataset) -> Iterator[Finding]:
    if rows := leaked(data):
        title = f"{_many(rows, 'text of training is', 'texts of training are')} also in validation or test."
        why = "The model would be asked what it has learnt by heart. The repair takes such rows out of training."
        yield _of_rows("leaks", "warning", title, why, data, rows)


def _twins(data: Dataset) -> Iterator[Finding]:
    if pairs := [names for names in _twin_names(data).values() if len(names) > 1]:
        shown = "; ".join(" and ".join(map(repr, names)) for names in pairs[:5])
        title = f"{_many(pairs, 'class is', 'classes are')} written in several ways: {shown}."
        why = "The repair uses the most frequent spelling."
        yield Finding("label_twins", "warning", title, why, fix="label_twins")


def _classes(data: Dataset) -> Iterator[Finding]:
    counts = data.counts
    if data.task == "regression" or not counts:
        return
    if len(counts) == 1 and data.task == "single_label":
        name = next(iter(counts))
        yield Finding("one_class", "error", f"All rows have the label {name!r}.", "There is nothing to tell apart.")
        return
    rare = [name for name, n in counts.items() if n < FEW_OF_CLASS]
    if rare:
        shown = ", ".join(f"{name!r} ({counts[name]})" for name in rare[:5]) + (", …" if len(rare) > 5 else "")
        title = f"{_many(rare, 'class has', 'classes have')} fewer than {FEW_OF_CLASS} rows: {shown}."
        why = "Too few to learn or to judge. The repair leaves such classes out."
        fix = "rare_classes" if len(counts) - len(rare) >= 2 else ""
        yield Finding("rare_classes", "warning", title, why if fix else why.split(". ")[0] + ".", fix=fix)
    ratio = max(counts.values()) / max(1, min(n for name, n in counts.items()))
    if ratio >= UNEVEN:
        title = f"The largest class has {ratio:.0f} times the rows of the smallest."
        why = "A model may learn to say the frequent one. Class weights make rare classes count as much."
        yield Finding("imbalance", "note", title, why, settings={"class_weights": True})


def _unseen(data: Dataset) -> Iterator[Finding]:
    if not any(data.splits) or data.task == "regression":
        return
    known = set(data.where(lambda i: data.splits[i] in ("train", "")).classes)
    rows = [i for i in range(len(data)) if data.splits[i] in ("validation", "test") and set(data.tags(i)) - known]
    if rows:
        who = _many(rows, "row of validation or test has", "rows of validation or test have")
        title = f"{who} classes that training never sees."
        yield _of_rows("unseen_classes", "warning", title, "The repair leaves such rows out.", data, rows)


def _nothing_to_judge(data: Dataset) -> Iterator[Finding]:
    usable = data.where(data.labelled)
    if not len(usable):  # other findings say so
        return
    done = split(usable, validation=DEFAULTS.validation_size, test=DEFAULTS.test_size, seed=DEFAULTS.seed)
    missing = " and ".join(name for name in ("validation", "test") if name not in done.splits)
    if missing:
        advice = "Add rows, merge small classes, or bring rows of your own to judge on."
        title = f"The split leaves no rows for {missing}."
        yield Finding("nothing_to_judge", "warning", title, f"{WITHOUT[missing]} {advice}")


def _many(things: Sized | int, one: str, several: str) -> str:
    count = things if isinstance(things, int) else len(things)
    return f"{count:,} {one if count == 1 else several}"


def _of_rows(name: str, severity: Severity, title: str, detail: str, data: Dataset, indexes: Sequence[int]) -> Finding:
    return Finding(name, severity, title, detail, _shown(data, indexes), fix=name)


def _shown(data: Dataset, indexes: Sequence[int]) -> tuple[int, ...]:
    return tuple(data.rows[i] for i in sorted(indexes)[:SHOWN])


def _groups(data: Dataset) -> dict[str, list[int]]:
    """The rows of each text that stands in several, by what the copies have in common."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(data.texts):
        if key := normal(text):
            groups[key].append(index)
    return {key: rows for key, rows in groups.items() if len(rows) > 1}


def _labels_of(data: Dataset, rows: Sequence[int]) -> set[Any]:
    return {tuple(sorted(data.tags(i))) or data.labels[i] for i in rows}


def _twin_names(data: Dataset) -> dict[str, list[str]]:
    names: dict[str, list[str]] = defaultdict(list)
    for name in data.classes if data.task != "regression" else ():
        names[normal(unicodedata.normalize("NFKC", name))].append(name)
    return names


def leaked(data: Dataset) -> list[int]:
    """The training rows whose text stands in validation or test too."""
    judged = {normal(data.texts[i]) for i in range(len(data)) if data.splits[i] in ("validation", "test")} - {""}
    return [i for i in range(len(data)) if data.splits[i] in ("train", "") and normal(data.texts[i]) in judged]


LOOKS: tuple[Callable[[Dataset], Iterator[Finding]], ...] = (
    _few_rows, _empty, _duplicates, _conflicts, _leaks, _twins, _classes, _unseen, _nothing_to_judge,
)  # fmt: skip


# --- repairs ---


def without_empty_texts(data: Dataset) -> Dataset:
    """Only rows with a text."""
    return data.where(lambda i: bool(data.texts[i].strip()))


def without_missing_labels(data: Dataset) -> Dataset:
    """Only rows with a label."""
    return data.where(lambda i: data.labels[i] != "")


def without_duplicates(data: Dataset) -> Dataset:
    """The first of rows with equal text and label."""
    extra = {i for rows in _groups(data).values() for i in rows[1:] if len(_labels_of(data, rows)) == 1}
    return data.where(lambda i: i not in extra)


def without_conflicts(data: Dataset) -> Dataset:
    """Of equal texts with different labels, those with the most frequent one; none where none is."""
    gone: set[int] = set()
    for rows in _groups(data).values():
        votes = Counter(tuple(sorted(data.tags(i))) or (str(data.labels[i]),) for i in rows)
        if len(votes) > 1:
            (first, most), (_, second) = votes.most_common(2)
            keep = first if most > second else None
            gone |= {i for i in rows if (tuple(sorted(data.tags(i))) or (str(data.labels[i]),)) != keep}
    return data.where(lambda i: i not in gone)


def without_leaks(data: Dataset) -> Dataset:
    """No text of validation or test in training."""
    gone = set(leaked(data))
    return data.where(lambda i: i not in gone)


def with_one_spelling(data: Dataset) -> Dataset:
    """Classes that differ only in case, blanks or width, under their most frequent spelling."""
    counts = data.counts
    names = {n: max(group, key=lambda g: counts[g]) for group in _twin_names(data).values() for n in group}
    labels = tuple(
        tuple(dict.fromkeys(names.get(tag, tag) for tag in label)) if isinstance(label, tuple)
        else names.get(label, label) if isinstance(label, str) else label
        for label in data.labels
    )  # fmt: skip
    return replace(data, labels=labels)


def without_rare_classes(data: Dataset) -> Dataset:
    """Only classes of at least FEW_OF_CLASS rows."""
    rare = {name for name, n in data.counts.items() if n < FEW_OF_CLASS}
    if data.task == "multi_label":
        kept = tuple(
            tuple(t for t in label if t not in rare) if isinstance(label, tuple) else label for label in data.labels
        )
        return replace(data, labels=kept)
    return data.where(lambda i: data.labels[i] not in rare)


def without_unseen(data: Dataset) -> Dataset:
    """No class in validation or test that training does not have."""
    known = set(data.where(lambda i: data.splits[i] in ("train", "")).classes)
    return data.where(lambda i: data.splits[i] not in ("validation", "test") or not set(data.tags(i)) - known)


FIXES: dict[str, Callable[[Dataset], Dataset]] = {
    "empty_texts": without_empty_texts,
    "missing_labels": without_missing_labels,
    "label_twins": with_one_spelling,
    "conflicting_labels": without_conflicts,
    "duplicates": without_duplicates,
    "leaks": without_leaks,
    "rare_classes": without_rare_classes,
    "unseen_classes": without_unseen,
}
"""The repairs by the name of their finding, in the order in which they work best."""


# --- languages ---

COMMON = {
    "English": """a about account after all also always am an and any are arrived as at back be because been before best
        but by can cant card come could day delivery did didn do does doesn don dont door down due ever every first food
        for from get give go going good got great had has have he help her here him his how i if im in into is isn it
        its just know last late less like ll long made make man many me money more most much must my need never new next
        no not nothing now of off on one only or order other our out over people phone please price really refund right
        said say see she should so some something son still t than thank thanks that the their them then there these
        they thing think this those time to today too two up us ve very want was wasn way we week well were what when
        where which while who why will with without won work worst would wrong year yes yesterday you your""",
    "German": """aber alle allem allen aller alles als also am an andere auch auf aus bei beim bekommen bestellt
        bestellung bin bis bist bitte da dafür damit danke dann das dass dein deine dem den der des dich die dies diese
        dieser dieses dir doch du durch ein eine einem einen einer eines er es etwas euch für ganz gegen geht geld
        gestern gibt gut gute guten habe haben hallo hat hatte her heute hier hilfe ich ihm ihn ihnen ihr ihre im immer
        in ist ja jahr jetzt kann kannst kein keine keinen konto können könnte lang lange leider lieferung los mal man
        mehr mein meine meinem meinen meiner mich mir mit morgen muss nach nein neu neue neuen nicht nichts nie noch nur
        ob oder ohne paket preis prima rechnung schlecht schon sehr sein seine seit sich sie sind so soll tag toll um
        und uns unser unter viel vom von vor wann war waren warum was weil wenn wer werden wie wieder will wir wird wo
        woche wurde wurden zeit zu zum zur zurück zwei über""",
    "Dutch": """aan al alle alleen alles als altijd ander andere bedankt ben bent best besteld bestelling betalen bij
        binnen dag dan dank dat de den der deze die dit doe doen door een eens eerste eigen elke en er erg ergens eten
        gaan gaat gedaan geen geld gisteren goed goede graag haar had hallo heb hebben hebt heeft heel helaas hem het
        hier hij hoe hulp hun iets ik in is ja jaar je jij jou jouw jullie kaart kan kapot kon kun kunnen kunt laat lang
        levering maar man me meer mensen met mij mijn moet moeten mooi morgen na naar nee niet niets nieuw nieuwe nog
        nooit nu of om omdat ons onze ook op over pakket prijs prima rekening slecht snel steeds te tegen terug tijd
        toch tot twee u uit uw van vandaag veel voor vraag waar waarom wanneer want waren was wat we week weer wel welke
        werd werkt wie wil willen worden wordt ze zeer zelf zich zien zij zijn zo zonder zou""",
    "French": """a ai aide ainsi après argent as au aucun aucune aujourd aussi autre aux avant avec avez avoir avons
        beaucoup bien bon bonjour bonne c ce cela ces cet cette chaque chez chose colis commande comme comment compte d
        dans de demain depuis des deux dire dit dois donc du elle elles en encore entre est et eu eux facture faire fait
        faut fois hier hui ici il ils j jamais je jour l la le les leur leurs livraison lui ma mais mal mauvais mauvaise
        me merci mes mieux moi moins mon monde même n ne ni non nos notre nous nouveau nouvelle on ont ou où par parce
        pas pendant peu peut peux plus pour pourquoi prix qu quand que quel quelle quelles quels qui quoi rien sa sans
        se ses si son sont sous suis sur t ta te temps tes toi ton toujours tous tout toute trop très tu un une va vais
        vers veux voir vos votre voudrais vous vraiment y à ça était été êtes être""",
    "Spanish": """a ahora al algo alguna algún antes aquí así ayer ayuda año años aún bien buen buena bueno cada carta
        casa comida como con contra cosa cosas cual cuando cuenta cuál cuándo cuánto cómo dar de del desde después
        dinero donde dos día días dónde e el ella ellos en entre entrega era eres es esa ese eso esta estaba estado
        estas este esto estos estoy está están favor fue gente gracias gran ha hace hacer han has hasta hay he hizo hola
        hoy la las le les llegó lo los mal mala malo mañana me mejor menos mes mi mis mismo mucha muchas mucho muchos
        muy más nada ni ningún no nos nuestra nuestro nueva nuevo nunca o otra otro paquete para parte pedido película
        peor pero poco por porque precio puede pueden puedo pues que quiere quiero quisiera quién qué se semana ser
        servicio si sido siempre sin sobre solo son soy su sus sí sólo también tan tarde tarjeta te tener tengo tiempo
        tiene tienen toda todas todo todos tu tus tú un una uno usted va vez vi y ya yo ¡ ¿ él""",
    "Italian": """a abbiamo adesso agli ai aiuto al alla alle allo altra altro anche ancora anni anno arrivato avere
        aveva bella bello bene brutto buon buona buono c carta casa che chi ci ciao cibo come con consegna conto cosa
        cosi così d da dal dalla degli dei del della delle dello di dire domani donna dopo dove due e ed era erano
        essere fa fare fatto favore fino fra gente giorno già gli grazie ha hai hanno ho i ieri il in io l la le lei lo
        loro lui ma mai male me meglio mi mia mie miei mio molta molto nei nel nella nelle nessun nessuno niente no noi
        non nostra nostro nuova nuovo o oggi ogni ora ordine ore pacco parte peggio per perchè perché però più poco poi
        posso prezzo prima proprio puoi può qual qualche quale quando quanto quel quella quelli quello questa queste
        questi questo qui quindi sa sarà se sei sempre senza servizio si sia siamo siete so solo sono sta stata stati
        stato stesso su sua sui sul sulla suo suoi sì te tempo ti tra troppo tu tua tuo tutta tutte tutti tutto un una
        uno va vi voglio volta vorrei vostra vostro è""",
    "Portuguese": """a agora ainda ajuda algo amanhã ano anos antes ao aos apenas aqui as assim até bem boa bom cada
        carta cartão casa chegou coisa com comida como conta contra da dar das de dela dele depois desde desta deste dia
        dias dinheiro do dois dos e ela elas ele eles em encomenda entre entrega era essa esse esta estava este estes
        estou está estão eu favor fazer filme foi foram gente gostaria gosto hoje há isso isto já lhe lá mais mal mas me
        melhor menos mesmo meu meus minha minhas muita muito muitos na nada nas nem nenhum no nos nossa nosso nova novo
        num numa nunca não nós o obrigada obrigado olá onde ontem os ou outra outro para parte pedido pela pelo pessoas
        pior pode podem por porque posso pouco precisa preciso preço qual quando quanto que quem quer quero ruim se seja
        sem semana sempre ser serviço será seu seus sim sobre sou sua suas são só também tarde te tem tempo tenho ter
        teve tinha toda todas todo todos tu tudo um uma vai vez vi você vocês vou à às é""",
}
"""Words that are frequent, in every language that has them: what several share speaks for none of them."""
WORDS = {name: frozenset(words.split()) for name, words in COMMON.items()}
SPELLINGS = {  # "_": where a word begins or ends
    "English": "th wh ght sh ould ly_ ed_ ing_ tion_ tions_",
    "German": "ä ö ü ß sch tz pf cht ung_ ungen_ keit_ lich",
    "Dutch": "ë ï é ij aa oe uu sch cht ieu heid_ lijk ing_",
    "French": "à â ç è é ê ë î ï ô ù û œ eau aux_ eux_ ez_ eur_ eurs_ tion_ tions_ aison oi",
    "Spanish": "á é í ñ ó ú ü ción_ iones_ dad_ os_",
    "Italian": "à è é ì ò ù zion gli cch zz gg tt gn issim",
    "Portuguese": "à á â ã ç é ê í ó ô õ ú lh nh dade_ agem_ os_",
}
"""Letters, and groups of them, that other languages have seldom; each speaks for a language like a common word."""
MARKS = {name: tuple(marks.split()) for name, marks in SPELLINGS.items()}
LETTERS = frozenset("".join(SPELLINGS.values()))
OTHER = "another language"
SCRIPTS = {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}
LANGUAGE_SAMPLE = 1000  # texts


def languages(texts: Sequence[str]) -> dict[str, float]:
    """The share of each language in a sample, largest first: a guess from letters and common words, no measurement.

    A text that may be of several languages counts for the one that clear texts mostly have; one that tells nothing
    does not count.

    >>> languages(["this is the best of all", "das ist nicht der Hund", "привет мир", "in", "?"])
    {'English': 0.33, 'German': 0.33, 'Cyrillic letters': 0.33}
    """
    step = max(1, len(texts) // LANGUAGE_SAMPLE)
    guesses = [_likely(text[:1000]) for text in texts[::step]]
    clear = Counter(names[0] for names in guesses if len(names) == 1)
    found = Counter(name for names in guesses if (name := _settled(names, clear)))
    shares = {name: round(n / found.total(), 2) for name, n in found.most_common()}
    return {name: share for name, share in shares.items() if share >= 0.01}


def _settled(names: Sequence[str], clear: Mapping[str, int]) -> str:
    """Of equally likely languages the one that most clear texts have; empty where none is ahead."""
    most = max((clear[name] for name in names), default=0)
    ahead = [name for name in names if clear[name] == most > 0]
    return ahead[0] if len(ahead) == 1 else ""


def _likely(text: str) -> list[str]:
    """The languages that most speaks for: several are equally likely, none where nothing tells."""
    letters = Counter(_script(c) for c in text[:200] if c.isalpha())
    if not letters:
        return []
    script = letters.most_common(1)[0][0]
    if "Japanese" in letters:
        return ["Japanese"]
    if script != "LATIN":
        return [script if script in SCRIPTS.values() else f"{script.capitalize()} letters"]
    hits = _evidence(text)
    most = max(hits.values())
    return [name for name, n in hits.items() if n == most > 0]


def _evidence(text: str) -> dict[str, int]:
    """How many different words and spellings of a text are those of each language."""
    words = re.findall(r"[^\W\d_]+|[¿¡]", unicodedata.normalize("NFC", text.lower()))
    joined, known = f"_{'_'.join(words)}_", set(words)
    hits = {name: len(known & WORDS[name]) + sum(mark in joined for mark in MARKS[name]) for name in WORDS}
    foreign = {c for c in joined if not c.isascii() and c not in LETTERS and _script(c) == "LATIN"}
    return hits | {OTHER: len(foreign)}


def _script(letter: str) -> str:
    word = "LATIN" if letter.isascii() else unicodedata.name(letter, "OTHER").split()[0].split("-")[0]
    return SCRIPTS.get(word, word)


# --- settings that suit the data ---


def recommended(data: Dataset, lengths: Lengths, *, small: bool = False) -> dict[str, tuple[Any, str]]:
    """Settings that suit this data and a base model that may be small, each with its reason."""
    rows = max(1, sum(s in ("train", "") for s in data.splits))
    epochs = 3 if rows >= 20_000 else 4 if rows >= 5_000 else 6 if rows >= 1_000 else 10
    epochs, why = (min(10, 2 * epochs), "fewer rows and small base models") if small else (epochs, "fewer rows")
    batch = 32 if rows >= 1_000 else 16 if rows >= 200 else 8
    longest = max_length(lengths.p99, lengths.limit)
    found: dict[str, tuple[Any, str]] = {
        "epochs": (epochs, f"{_many(rows, 'row', 'rows')} to train on; {why} need more rounds"),
        "batch_size": (batch, f"about {_many(math.ceil(rows / batch), 'step', 'steps')} an epoch"),
        "max_length": (longest, f"99 of 100 texts have at most {_many(lengths.p99, 'token', 'tokens')}"),
    }
    counts = [n for n in data.counts.values() if n]
    if data.task == "single_label" and counts and max(counts) / min(counts) >= UNEVEN:
        found["class_weights"] = (True, "the classes are of very different size")
    return found


def max_length(p99: int, limit: int) -> int:
    """Room for 99 of 100 texts, in steps of 8 tokens, as far as the model reads.

    >>> max_length(37, 512), max_length(600, 512)
    (40, 512)
    """
    return max(8, min(limit, math.ceil(p99 / 8) * 8))
