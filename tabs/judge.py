"""The judge in Chat: a fine-tuned classifier scores every finished answer; a badge below it says how.

The choice is a widget of the settings, kept by the browser. The badges are put in place by assets/judge.js, which asks
`Judging` for them once an answer is whole: no stream waits for a verdict.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from multimodel.engine import Engine
from multimodel.errors import BadRequest, ModelNotFound
from multimodel.finetune.store import Store
from multimodel.judge import Judge

from .asking import Answer, answering, served
from .explorer_list import error_html
from .scripted import QUICK, scripted

if TYPE_CHECKING:
    from multimodel.finetune.labels import LabelMap
    from multimodel.finetune.types import Prediction

NONE = ("none", "")
AT_ONCE = 64  # answers of one request
SHOWN = 8  # labels of a badge's details


def badge_html(model: str, labels: LabelMap, said: Prediction) -> str:
    """A verdict: the label and how sure, and on hover or focus every label's probability."""
    if labels.task == "regression":
        return f'<span class="mm-verdict" title="{escape(model)}"><b>{escape(said.label)}</b></span>'
    ranked = sorted(said.scores.items(), key=lambda row: -row[1])
    rows = "".join(
        f'<span><em>{escape(name)}</em><i><i style="width:{100 * share:.1f}%"></i></i><em>{share:.2f}</em></span>'
        for name, share in ranked[:SHOWN]
    )
    more = f"<span>and {len(ranked) - SHOWN} more</span>" if len(ranked) > SHOWN else ""
    name = escape(said.label) or "no label"
    return (
        f'<span class="mm-verdict" tabindex="0" aria-label="{escape(model)} says {name}, {said.score:.2f}">'
        f'<b>{name}</b> {said.score:.2f}<span class="mm-verdict-more" hidden>'
        f"<strong>{escape(model)}</strong>{rows}{more}</span></span>"
    )


class Judging:
    """What the page can ask. Every value it sends is checked: this is a public address."""

    def __init__(self, engine: Engine) -> None:
        self._store = Store(engine.settings)
        self._judge = Judge(engine.predictors)

    @answering
    def judged(self, asked: Answer) -> Answer:
        """Badges for finished answers: {badges}, in the order of the texts; {error, gone} where the judge is gone."""
        model, texts = str(asked.get("model", "")), asked.get("texts")
        if model not in self._store.names():
            gone = ModelNotFound(f"The judge {model[:80]} is gone.", hint="Choose another one in the settings.")
            return {"error": error_html(gone), "gone": True}
        if not isinstance(texts, list) or len(texts) > AT_ONCE or not all(isinstance(text, str) for text in texts):
            raise BadRequest(f"Up to {AT_ONCE} texts can be judged at once.", hint="Send fewer.")
        labels, found = self._judge.verdicts(model, texts)
        return {"badges": [badge_html(model, labels, said) for said in found]}


class JudgePanel:
    """The widgets: the choice among the settings, and what puts the badges in place."""

    def __init__(self, engine: Engine) -> None:
        self._store = Store(engine.settings)
        self._judging = Judging(engine)

    def build_choice(self) -> None:
        """The choice, inside the settings."""
        self.choice = gr.Dropdown(
            [NONE],
            value="",
            label="Judge",
            info="A fine-tuned model scores every answer; all columns",
            elem_id="mm-judge-choice",
        )

    def build_badges(self) -> None:
        """What puts the badges in place; it is never seen itself."""
        self.kept = gr.BrowserState("", storage_key="multimodel-judge", secret="multimodel")
        self.badges = scripted(
            "judge", "mm-judge", "", template="<span hidden></span>", server_functions=[served(self._judging.judged)]
        )

    def connect(self, page: gr.Blocks) -> None:
        """Let the choice follow what the browser kept, and the badges the choice."""
        both = [self.choice, self.badges]
        page.load(self.restore, [self.kept], both, **QUICK)
        self.choice.focus(self.choices, [self.choice], [self.choice], **QUICK)
        self.badges.gone(self.choices, [self.choice], [self.choice], **QUICK)
        self.choice.input(lambda name: (name, name), [self.choice], [self.kept, self.badges], **QUICK)

    def restore(self, name: str | None) -> tuple[Any, str]:
        """The judge that this browser had; it judges where its model is still here."""
        return self.choices(name), name if name and name in self._store.names() else ""

    def choices(self, name: str | None) -> Any:
        """The models there are now; a judge that is gone stays chosen, and says so."""
        names = self._store.names()
        gone = [(f"{name}, gone", name)] if name and name not in names else []
        return gr.update(choices=[NONE, *((each, each) for each in names), *gone], value=name or "")
