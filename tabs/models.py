"""The saved models: their figures, renaming, deleting, packing, and the way to the Hub.

The page (assets/models.js) asks the functions of `Models`, which answer with finished HTML. The panel is built by
`predict.PredictPanel`.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from datetime import UTC, datetime
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from multimodel.engine import Engine
from multimodel.errors import BrokenFile, ModelNotFound, TrainingError
from multimodel.finetune.corrections import Corrections
from multimodel.finetune.runfolder import read
from multimodel.finetune.store import CARD, METADATA, METRICS, MISCLASSIFIED, SavedModel, Store
from multimodel.hub.push import has_token, push
from multimodel.jobs import Cancelled, Job

from . import markdown
from .asking import Answer, answering
from .explorer_list import linked
from .files import Background, download_place, url_of
from .format import size
from .models_page import (
    WAYS,
    detail_html,
    launch_html,
    models_html,
    onnx_html,
    push_html,
    pushing_html,
    rename_html,
)

LONGEST_CARD = 120_000  # characters of a card that are shown
ONNX = "multimodel.finetune.onnx"


STOPPED = "Stopped. The repository may be there, without these files; to send them, push again and have it updated."


class Models:
    """What the Models view can ask. Every value it sends is checked: these are public addresses."""

    def __init__(self, engine: Engine, corrections: Corrections) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.store = Store(engine.settings)
        self._corrections = corrections
        self._background = Background()

    @answering
    def saved(self, asked: Answer) -> Answer:
        """All models: {html, count}."""
        found = self.store.all()
        return {"html": models_html(found, datetime.now(UTC).date()), "count": len(found)}

    @answering
    def detail(self, asked: Answer) -> Answer:
        """One model's page: {html, name}."""
        model = self._model(asked)
        onnx = '<button type="button" data-do="onnx">ONNX, 8 bits</button>' if find_spec(ONNX) else ""
        record = {
            "metrics": _read(model.path / METRICS),
            "metadata": _read(model.path / METADATA),
            "errors": _read(model.path / MISCLASSIFIED).get("errors", []),
        }
        html = detail_html(model, record, self._frees(model), onnx, datetime.now(UTC).date())
        return {"html": html, "name": model.name}

    @answering
    def about(self, asked: Answer) -> Answer:
        """The model card as safe HTML: {html}."""
        try:
            text = (self._model(asked).path / CARD).read_text(encoding="utf-8")
        except OSError:
            text = ""
        if text.startswith("---\n"):
            text = text.partition("\n---\n")[2]
        return {"html": f'<div class="mm-md">{markdown.render(markdown.without_html(text[:LONGEST_CARD]))}</div>'}

    # names

    @answering
    def renaming(self, asked: Answer) -> Answer:
        """The field for a new name: {html}."""
        return {"html": rename_html(self._model(asked).name)}

    @answering
    def rename(self, asked: Answer) -> Answer:
        """Give a model another name: {name}."""
        old = self._model(asked).name
        self._refuse_in_training(old)
        self.engine.predictors.unload(old)
        new = self.store.rename(old, str(asked.get("to", ""))).name
        self._corrections.rename(old, new)
        return {"name": new}

    @answering
    def discard(self, asked: Answer) -> Answer:
        """Delete a model and the record of its run: {html}, what that freed."""
        model = self._model(asked)
        self._refuse_in_training(model.name)
        frees = self._frees(model)
        self.engine.predictors.unload(model.name)
        self.store.delete(model.name)
        kept = len(self._corrections.of(model.name))
        more = f" Its {kept:,} corrections are kept." if kept else ""
        said = f"{escape(model.name)} is deleted, {size(frees)} freed.{more}"
        return {"html": f'<div class="mx-done" role="status">{said}</div>'}

    # out

    @answering
    def pack(self, asked: Answer) -> Answer:
        """A zip file of a model, made in the background: {url, file}."""
        name = self._model(asked).name

        def work() -> Answer:
            path = self.store.zip(name, download_place(f"{name}.zip"))
            return {"url": url_of(path), "file": path.name, "html": f"<p>{path.name}, {size(path.stat().st_size)}</p>"}

        return self._background.start(work)

    @answering
    def onnx(self, asked: Answer) -> Answer:
        """A model for ONNX Runtime in 8 bits, made in the background: {html}."""
        model = self._model(asked)
        if not find_spec(ONNX):
            raise ModelNotFound("This export is not part of this copy of the app.", hint="Get the whole repository.")

        def work() -> Answer:
            module = import_module(ONNX)
            path: Path = module.export(model.path, self.settings)
            return {"html": onnx_html(str(path), _read(path / module.AGREEMENT))}

        return self._background.start(work)

    @answering
    def pushing(self, asked: Answer) -> Answer:
        """What is needed to bring a model to the Hub: {html}."""
        name = self._model(asked).name
        return {"html": push_html(name, has_token(self.settings), self.settings.models.hub_url)}

    @answering
    def push(self, asked: Answer) -> Answer:
        """Bring a model to the Hub, in the background: {html}."""
        model = self._model(asked)
        repo, secret = str(asked.get("repo", ""))[:200].strip(), str(asked.get("secret", ""))[:500].strip()
        private, update = asked.get("private") is not False, asked.get("update") is True
        job = Job()

        def work() -> Answer:
            try:
                url = push(model.path, repo, self.settings, token=secret, private=private, update=update, job=job)
            except Cancelled:
                return {"html": f'<p role="status">{STOPPED}</p>'}
            return {"html": f'<p class="mp-good" role="status">It is on the Hub: {linked(url)}</p>'}

        return self._background.start(work, job=job)

    @answering
    def task(self, asked: Answer) -> Answer:
        """The answer of what was begun in the background, or {task, running, html}; with `stop`, once it has ended."""
        id = str(asked.get("task", ""))
        job = self._background.job(id)
        if job and asked.get("stop") is True:
            job.cancel()
        answer = self._background.answer(id, 0.4)
        return {"html": pushing_html(job.progress), **answer} if job and job.progress.total else answer

    @answering
    def launch(self, asked: Answer) -> Answer:
        """The command that trains a model's run again with several processes: {html}."""
        processes = asked.get("processes")
        count = processes if isinstance(processes, int) and 1 <= processes <= 64 else 2
        way = str(asked.get("way"))
        way = way if way in WAYS else "processor"
        name, jobs = self._model(asked).name, self.engine.jobs
        command = jobs.launch_command(name, count, gpus=way == "gpus", split=way == "split")
        return {"html": launch_html(shlex.join(command), way)}

    # behind them

    def _model(self, asked: Answer) -> SavedModel:
        return self.store.get(str(asked.get("name", ""))[:200])

    def _frees(self, model: SavedModel) -> int:
        """Bytes that deleting a model frees, the record and checkpoints of its run included."""
        folders = (model.path, self.store.runs / model.name)
        return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())

    def _refuse_in_training(self, name: str) -> None:
        with suppress(ModelNotFound):
            if not self.engine.jobs.get(name).ended:
                raise TrainingError(f"{name} is in training.", hint="Stop its run first.")


def _read(path: Path) -> dict[str, Any]:
    """A file of the record; nothing where it cannot be read, for the model itself may be well."""
    try:
        return read(path)
    except BrokenFile:
        return {}
