"""Where the data of a run comes from: a path, a sample set of ours, or a data set on the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import DataError, DownloadFailed
from ..settings import Settings
from . import data as rows
from .data import Dataset
from .reading import read
from .report import FIXES
from .tables import Limits, Table, cell_of, column_names, stack
from .types import TrainConfig

ON_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
SAMPLE_FILE = "data.csv"


def table(source: str, settings: Settings, limits: Limits = Limits()) -> Table:
    """The rows of a source. Raises DataError or DownloadFailed."""
    path = Path(source).expanduser()
    if path.exists():
        return read(path, limits)
    sample = samples(settings).get(source)
    if sample:
        return read(sample, limits)
    if ON_HUB.fullmatch(source) and not path.suffix:
        return hub(source, settings, limits)
    near = get_close_matches(source, [*samples(settings), *_beside(path)], n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else "Write a path, the name of a sample set, or OWNER/NAME on the Hub."
    raise DataError(f"There is no data called {source!r}.", hint=hint)


def samples(settings: Settings) -> dict[str, Path]:
    """The sample sets that come with the app, by name."""
    folder = settings.models.assets_dir / "datasets"
    found = sorted(folder.glob(f"*/{SAMPLE_FILE}")) if folder.is_dir() else []
    return {path.parent.name: path for path in found}


def _beside(path: Path) -> list[str]:
    try:
        return [str(path.parent / other.name) for other in path.parent.iterdir()]
    except OSError:
        return []


def prepared(config: TrainConfig, settings: Settings, limits: Limits = Limits()) -> Dataset:
    """What a config trains on: read, mapped, repaired and split. Raises DataError or DownloadFailed."""
    return finished(mapped(config, settings, limits), config)


def mapped(config: TrainConfig, settings: Settings, limits: Limits = Limits()) -> Dataset:
    """The rows of a config as they come, read and mapped. Raises DataError or DownloadFailed."""
    parts = [("train", table(config.data, settings, limits))]
    for name, source in (("validation", config.validation_data), ("test", config.test_data)):
        if source:
            parts.append((name, table(source, settings, limits)))
    whole = parts[0][1] if len(parts) == 1 else stack(parts, limits)
    mapping = rows.guess(
        whole,
        text=config.text_column,
        label=config.label_column,
        split=config.split_column or (whole.columns[-1] if len(parts) > 1 else None),
        task=config.task,
        separator=config.label_separator,
    )
    return rows.dataset(whole, mapping, config.data)


def finished(data: Dataset, config: TrainConfig) -> Dataset:
    """A mapped data set repaired as the config says and split; rows without text or answer cannot train."""
    for name in config.fixes:
        if name not in FIXES:
            raise DataError(f"There is no repair called {name!r}.", hint=f"Use {', '.join(FIXES)}.")
        data = FIXES[name](data)
    usable = data.where(data.labelled)
    if data.task == "regression" and not len(usable):
        raise DataError("No label is a number.", hint="Choose another label column, or train on labels.")
    usable = rows.split(usable, validation=config.validation_size, test=config.test_size, seed=config.seed)
    check(usable)
    return usable


def check(data: Dataset) -> None:
    """Refuse what no training can use. Raises DataError."""
    train = data.of("train")
    if len(train) < 2:
        hint = "Give it at least a few dozen rows with text and label; one in each split is not enough."
        raise DataError(f"There are {len(train)} rows to train on.", hint=hint)
    if data.task == "regression":
        if len(set(train.labels)) < 2:
            raise DataError("All numbers are the same.", hint="Choose another label column.")
        return
    classes = train.classes
    if data.task == "single_label" and len(classes) < 2:
        hint = "A classifier needs rows of at least two classes; perhaps another column holds the labels."
        raise DataError(f"All rows have the same label, {', '.join(classes)!r}.", hint=hint)
    if not classes:
        raise DataError("No row has a label.", hint="Choose another label column.")
    if len(classes) > rows.MOST_CLASSES or (data.task == "single_label" and len(classes) == len(train) > 2):
        hint = "Choose the column that says which of a few kinds a text is, or train a number."
        raise DataError(f"There are {len(classes):,} classes in {len(train):,} rows.", hint=hint)


def hub(source: str, settings: Settings, limits: Limits) -> Table:
    """A data set of the Hub, all its splits; `OWNER/NAME:CONFIG` names one of several.

    Raises DataError or DownloadFailed.
    """
    if settings.models.offline and not Path(source).exists():
        hint = "Unset HF_HUB_OFFLINE to download it, or use a file."
        raise DownloadFailed(f"{source} is on the Hub, and the Hub is switched off.", hint=hint)
    import datasets

    name, _, config = source.partition(":")
    token = settings.api.hf_token.get_secret_value() if settings.api.hf_token else None
    try:
        found = datasets.load_dataset(
            name, config or None, token=token, cache_dir=str(settings.models.cache_dir / "datasets")
        )
    except Exception as error:  # the library raises what its many readers raise
        raise _refused(source, error) from error
    return of_splits(found, limits)


def _refused(source: str, error: Exception) -> DataError | DownloadFailed:
    said = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    if "Config name is missing" in said or "BuilderConfig" in said:
        return DataError(f"{source}: {said}", hint="Name one of them: OWNER/NAME:CONFIG.")
    if isinstance(error, FileNotFoundError) or type(error).__name__ in (
        "DatasetNotFoundError",
        "DataFilesNotFoundError",
    ):
        return DataError(f"{source} is not on the Hub: {said}", hint="Check the name; a private one needs a token.")
    if isinstance(error, ConnectionError | TimeoutError | OSError):
        return DownloadFailed(f"{source} could not be downloaded: {said}", hint="Check the network, or use a file.")
    return DataError(f"{source} cannot be read: {said}", hint="Download its file and use that.")


def of_splits(found: Any, limits: Limits = Limits()) -> Table:
    """The table of a `datasets.DatasetDict` or `Dataset`; numbered classes get their names."""
    if not hasattr(found, "keys"):
        return _of_split(found, limits)
    return stack([(str(name), _of_split(part, limits)) for name, part in found.items()], limits)


def _of_split(part: Any, limits: Limits) -> Table:
    names = list(part.column_names)[: limits.columns]
    decode = {name: _class_names(part.features[name]) for name in names}
    cells = tuple(
        tuple(cell_of(_named(row[name], decode[name]), limits) for name in names)
        for row in islice(_iterate(part), limits.rows + 1)
    )
    return Table(tuple(column_names(names, len(names))), cells, tuple(range(1, len(cells) + 1)))


def _iterate(part: Any) -> Iterator[dict[str, Any]]:
    for start in range(0, len(part), 1000):
        batch = part[start : start + 1000]
        yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))


def _class_names(feature: Any) -> list[str] | None:
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return list(names) if names else None


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None:
        return value
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else ""
