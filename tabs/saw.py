"""The panel beside an answer: what the model saw, how likely its tokens were, and where it parts from another answer.

The page asks `Details` for what it shows; what takes long, such as hashing a file, is fetched by a second request.
"""

from __future__ import annotations

from multimodel import blind
from multimodel.board import Asked, Board
from multimodel.boards import Boards
from multimodel.engine import Engine
from multimodel.errors import BadRequest, MultimodelError
from multimodel.provenance import still

from . import saw_page
from .asking import Answer, answering, served
from .files import Background
from .format import called
from .scripted import scripted


class Details:
    """What the page can ask. Every value it sends is checked: this is a public address."""

    def __init__(self, engine: Engine, boards: Boards) -> None:
        self._engine = engine
        self._boards = boards
        self._background = Background()

    @answering
    def saw(self, asked: Answer) -> Answer:
        """One view of an answer: {title, html}, and for its tokens {rows, least}. `view`: which.

        `address`: of the board, `turn`: the answer, `other`: the one to compare it with.
        """
        board, found = self._found(asked)
        views = {"prompt": self._prompt, "tokens": self._tokens, "compare": self._compare}
        view = views.get(str(asked.get("view")), self._prompt)
        return {"title": called(found.turn.answer.model), **view(board, found, asked)}

    @answering
    def more(self, asked: Answer) -> Answer:
        """A `part` of the view "prompt" that takes longer: {html}, or {task, running}, by which it is asked for again.

        `load`: bring the model in to see its prompt.
        """
        if task := asked.get("task"):
            return self._background.answer(str(task), wait=0.4)
        board, found = self._found(asked)
        if asked.get("part") == "files":
            return self._background.start(lambda: {"html": self._files(found)})
        load = bool(asked.get("load"))
        return self._background.start(lambda: {"html": self._read(board, found, load=load)})

    def _found(self, asked: Answer) -> tuple[Board, Asked]:
        board, turn = self._boards.get(str(asked.get("address", ""))), asked.get("turn")
        blind.refuse(board, "saw")
        found = board.asked(turn) if isinstance(turn, int) else None
        if not found:
            raise BadRequest("This answer is not here any more, or is being made.", hint="Close this and look again.")
        return board, found

    def _prompt(self, board: Board, found: Asked, asked: Answer) -> Answer:
        capabilities = self._engine.capabilities(found.spec)
        return {"html": saw_page.asked_html(found, (capabilities and capabilities.key_var) or "")}

    def _tokens(self, board: Board, found: Asked, asked: Answer) -> Answer:
        turn = found.turn
        tokens = turn.answer.logprobs or self._boards.store.logprobs(board.chat, turn.id).get(turn.id, ())
        return saw_page.tokens_view(tokens, turn.answer.text)

    def _compare(self, board: Board, found: Asked, asked: Answer) -> Answer:
        other = asked.get("other")
        chosen = other if isinstance(other, int) else None
        return {"html": saw_page.compare_html(found.turn, board.versions(found.turn.id), chosen)}

    def _read(self, board: Board, found: Asked, *, load: bool) -> str:
        if not found.turn.answer.params:
            return saw_page.prompt_html(found, None, "The model was never asked.")
        try:
            return saw_page.prompt_html(found, board.inspect(found, load=load))
        except MultimodelError as error:
            return saw_page.prompt_html(found, None, f"{error} {error.hint}")

    def _files(self, found: Asked) -> str:
        loaded = found.turn.answer.sent.loaded if found.turn.answer.sent else None
        return saw_page.files_html(still(found.spec, self._engine.settings, loaded) if loaded else None)


class SawPanel:
    """The panel itself; assets/saw.js opens it where a menu of an answer says so."""

    def __init__(self, engine: Engine, boards: Boards) -> None:
        self._details = Details(engine, boards)

    def build(self) -> None:
        """Make the widget."""
        scripted("saw", "mm-saw", "", server_functions=[served(self._details.saw), served(self._details.more)])
