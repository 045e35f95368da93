"""How long a prompt is, known before it is sent."""

from multimodel.board import Board
from multimodel.engine import Engine
from multimodel.types import Message, ModelId
from tabs.format import overflow
from tests.support import needs

pytestmark = needs("llama_cpp")
GUIDE = ModelId("gguf", "guide")


def test_a_long_prompt_loads_the_model_at_hand_and_is_counted_by_it() -> None:
    with Engine() as engine:
        assert engine.measure(GUIDE, [Message("user", "Hello")]) is None, "a short prompt loads nothing"
        size = engine.measure(GUIDE, [Message("user", "word " * 1200)])
        assert size and size.tokens > size.context_length and not size.estimated
        assert "The prompt alone is too long" in overflow(size)


def test_a_long_conversation_says_how_many_messages_would_be_left_out() -> None:
    with Engine() as engine:
        history = [Message("user", "word " * 500), Message("assistant", "Yes."), Message("user", "word " * 600)]
        size = engine.measure(GUIDE, history)
        assert size and size.dropped == 2
        assert "The oldest 2 messages would be left out." in overflow(size)


def test_a_board_measures_each_column_with_its_own_conversation() -> None:
    with Engine() as engine:
        board = Board(engine, [GUIDE, ModelId("openai", "gpt-5-mini")])
        assert [column.model for column, _ in board.measure("word " * 1200)] == [GUIDE]
