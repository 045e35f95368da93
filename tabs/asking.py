"""What a page asks of the server and how it is answered: functions that a gr.HTML serves, one object in, one out.

Every value a page sends is checked by the function it is sent to: these are public addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multimodel.errors import InvalidParameter, MultimodelError

from .explorer_list import error_html

Answer = dict[str, Any]


def answering(function: Callable[[Any, Answer], Answer], retry: str = "") -> Callable[[Any, Answer | None], Answer]:
    """Errors of ours become an answer too: {"error": HTML}. The page sends one object or nothing.

    `retry`: the action of a button that asks again, where the same question may be answered another time.
    """

    def answer(self: Any, asked: Answer | None = None) -> Answer:
        try:
            return function(self, asked if isinstance(asked, dict) else {})
        except MultimodelError as error:
            return {"error": error_html(error, "" if isinstance(error, InvalidParameter) else retry)}

    answer.__name__ = function.__name__
    answer.__doc__ = function.__doc__
    return answer


def served(method: Callable[[Answer | None], Answer]) -> Callable[[Answer | None], Answer]:
    """A method as a function of its own: Gradio marks what it serves."""

    def call(asked: Answer | None = None) -> Answer:
        return method(asked)

    call.__name__ = method.__name__
    return call
