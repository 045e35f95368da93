"""What the page asks: every error becomes an answer, one that nobody foresaw too."""

from __future__ import annotations

import pytest

from multimodel.errors import BadRequest, InvalidParameter
from tabs.asking import Answer, answering


class Asked:
    """Functions of a page, each of which goes wrong in its own way."""

    @answering
    def foreseen(self, asked: Answer) -> Answer:
        raise BadRequest("That is not here.", hint="Choose another one.")

    @answering
    def unforeseen(self, asked: Answer) -> Answer:
        raise OSError("<b>The disk</b> is gone.\nIt was old.")

    def _parameter(self, asked: Answer) -> Answer:
        raise InvalidParameter("epochs is 0.")

    def _bug(self, asked: Answer) -> Answer:
        return {"text": asked["nothing"]}

    parameter, bug = answering(_parameter, "retry"), answering(_bug, "retry")


def test_an_error_of_ours_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    said = Asked().foreseen({})["error"]
    assert "That is not here." in said and "Choose another one." in said
    assert not caplog.records


def test_a_bug_of_ours_is_an_answer_and_its_place_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    said = Asked().unforeseen()["error"]
    assert "OSError: &lt;b&gt;The disk&lt;/b&gt; is gone." in said and "It was old" not in said and "report it" in said
    assert "unforeseen could not be answered" in caplog.text and "Traceback" in caplog.text


def test_what_may_go_better_another_time_can_be_asked_again() -> None:
    assert 'data-do="retry"' not in Asked().parameter({})["error"]
    said = Asked().bug({})["error"]
    assert "KeyError: &#x27;nothing&#x27;" in said and 'data-do="retry"' in said
