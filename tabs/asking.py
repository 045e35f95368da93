"""What a page asks of the server and how it is answered: functions that a gr.HTML serves, one object in, one out.

Every value a page sends is checked by the function it is sent to: these are public addresses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from multimodel.errors import InvalidParameter, MultimodelError, Unexpected

from .explorer_list import error_html

Answer = dict[str, Any]

_LOG = logging.getLogger(__name__)


def answering(function: Callable[[Any, Answer], Answer], retry: str = "") -> Callable[[Any, Answer | None], Answer]:
    """Every error becomes an answer too: {"error": HTML}. The page sends one object or nothing.

    `retry`: the action of a button that asks again, where the same question may be answered another time.
    """

    def answer(self: Any, asked: Answer | None = None) -> Answer:
        try:
            return function(self, asked if isinstance(asked, dict) else {})
        except MultimodelError as error:
            return {"error": error_html(error, "" if isinstance(error, InvalidParameter) else retry)}
        except Exception as error:  # a bug of ours: the page shows it, and its place goes into the log
            _LOG.exception("%s could not be answered", function.__name__)
            return {"error": error_html(unexpected(error), retry)}

    answer.__name__ = function.__name__
    answer.__doc__ = function.__doc__
    return answer


def unexpected(error: Exception) -> Unexpected:
    """An error that is none of ours as one: its type, and the first line of what it says.

    >>> str(unexpected(OSError("The disk is gone.\\nIt was old."))), str(unexpected(KeyError()))
    ('OSError: The disk is gone.', 'KeyError')
    """
    first = str(error).strip().partition("\n")[0]
    said = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return Unexpected(said, hint="Try again; if it stays, report it.")


def served(method: Callable[[Answer | None], Answer]) -> Callable[[Answer | None], Answer]:
    """A method as a function of its own: Gradio marks what it serves."""

    def call(asked: Answer | None = None) -> Answer:
        return method(asked)

    call.__name__ = method.__name__
    return call
