"""What answers cost: at real prices, by whoever counts, and never a zero where nobody knows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import pytest

from multimodel.board import Board
from multimodel.boards import Boards
from multimodel.engine import Engine
from multimodel.errors import InvalidSetting, ServerFailure
from multimodel.exchange import from_json, to_json
from multimodel.pricelist import PriceList
from multimodel.prices import Expected, Offers, Spent, Tariff, Unpriced, cost, expected, kept, own, routed, total
from multimodel.settings import ApiSettings, ChatSettings, Endpoint, ModelSettings, Settings
from multimodel.types import Cost, Message, ModelId, Snapshot, Timing, Usage
from tabs.cost import expected_html
from tabs.format import figures

from .faults import DONE, FIN, FaultServer, event, streamed
from .support import Fakes, eventually, needs, says, until

OPENAI = "https://api.openai.com/v1"
DAY = datetime(2026, 6, 1, tzinfo=UTC)
ONLINE = Settings(models=ModelSettings(offline=False))
OFFERS: Offers = {"a/b": {"fast": (1.0, 4.0), "cheap": (0.5, 1.0)}, "a/one": {"only": (2.0, 2.0)}}


def priced(name: str, usage: Usage, when: datetime = DAY) -> float:
    found = kept(name, url=OPENAI, when=when)
    assert isinstance(found, Tariff)
    assert not found.about
    return found.of(usage)


def answer(text: str = "", usage: Usage | None = None, **more: object) -> Snapshot:
    plain = Snapshot(ModelId("openai", "m"), text, Timing(0.0), usage, "stop")
    return replace(plain, **more)  # type: ignore[arg-type]


# the library


@pytest.mark.parametrize(
    ("name", "dollars"),
    [  # 1,000 tokens in, 100 out, at the public price lists of OpenAI
        ("gpt-4o", 0.0025 + 0.001),
        ("gpt-4o-mini", 0.00015 + 0.00006),
        ("gpt-4o-mini-2024-07-18", 0.00015 + 0.00006),
        ("gpt-5-mini", 0.00025 + 0.0002),
        ("o4-mini", 0.0011 + 0.00044),
    ],
)
def test_the_price_of_a_model(name: str, dollars: float) -> None:
    assert priced(name, Usage(1000, 100)) == pytest.approx(dollars)


def test_cached_tokens_have_a_price_of_their_own() -> None:
    assert priced("gpt-4o", Usage(1000, 100, reused_tokens=800)) == pytest.approx(0.0005 + 0.001 + 0.001)
    assert priced("gpt-5-mini", Usage(1000, 0, reused_tokens=1000)) == pytest.approx(0.000025)


@pytest.mark.parametrize("name", ["gpt-9", "gpt-4o-unheard-of", "gpt-5-mini-7b", "ft:gpt-4o-mini:acme::1", "gpt-", ""])
def test_a_model_that_nobody_knows_has_no_price(name: str) -> None:
    found = kept(name, url=OPENAI, when=DAY)
    assert found == Unpriced(f"No price is known for {name}. Set one in PRICES.")


def test_a_release_that_nobody_knows_has_the_price_of_its_family() -> None:
    found = kept("o4-mini-preview-2031-01-01", url=OPENAI, when=DAY)
    assert isinstance(found, Tariff)
    assert found.about == "priced as o4-mini, the nearest known model"
    assert found.of(Usage(1000, 100)) == pytest.approx(priced("o4-mini", Usage(1000, 100)))


def test_who_serves_a_model_is_known_by_the_address() -> None:
    name = "llama-3.3-70b-versatile"
    there = kept(name, url="https://api.groq.com/openai/v1", when=DAY)
    assert isinstance(there, Tariff)
    assert there.of(Usage(1_000_000, 0)) == pytest.approx(0.59)
    assert isinstance(kept(name, url="https://elsewhere.example/v1", when=DAY), Unpriced)


def test_the_source_says_how_high_whose_and_of_when() -> None:
    found = kept("gpt-4o", url=OPENAI, when=DAY)
    assert isinstance(found, Tariff)
    assert found.source.startswith("$2.5 input, $10 output, $1.25 input cache read, a million tokens; genai-prices 0.")
    assert found.source.endswith("for 2026-06-01")


def test_the_library_is_never_made_to_look_for_newer_prices() -> None:
    priced("gpt-4o", Usage(1, 1))
    updates = sys.modules["genai_prices.update_prices"]
    assert updates._shared_updater.ref_count == 0
    assert not sys.modules["genai_prices.data_snapshot"].get_snapshot().from_auto_update


# a person's own, and the Hub's router


def test_own_prices() -> None:
    assert own((2.0, 8.0)).of(Usage(500_000, 250_000, reused_tokens=100_000)) == pytest.approx(3.0)
    assert own((2.0, 8.0, 0.5)).of(Usage(500_000, 0, reused_tokens=100_000)) == pytest.approx(0.85)


@pytest.mark.parametrize(
    ("name", "provider", "dollars"),
    [("a/b@cheap", "", 0.5), ("a/b", "cheap", 0.5), ("a/b@fast", "cheap", 0.5), ("a/one", "", 2.0)],
)
def test_the_router_is_paid_by_provider(name: str, provider: str, dollars: float) -> None:
    found = routed(name, provider, OFFERS, DAY)
    assert isinstance(found, Tariff)
    assert found.of(Usage(1_000_000, 0)) == pytest.approx(dollars)
    assert not found.about
    assert "2026-06-01" in found.source


def test_where_the_router_does_not_say_who_answered_the_dearest_counts() -> None:
    found = routed("a/b", "", OFFERS, DAY)
    assert isinstance(found, Tariff)
    assert found.of(Usage(1_000_000, 0)) == 1.0
    assert "dearest of 2" in found.about


def test_before_the_router_has_told_its_prices_the_library_counts() -> None:
    found = routed("Qwen/Qwen3-32B@groq", "", None, DAY)
    assert isinstance(found, Tariff)
    assert found.of(Usage(1_000_000, 0)) == pytest.approx(0.29)
    assert "genai-prices" in found.source
    assert isinstance(routed("Qwen/Qwen3-32B", "", None, DAY), Unpriced)


def test_the_list_of_the_router_is_asked_for_once() -> None:
    asked: list[Settings] = []

    def read(settings: Settings) -> Offers:
        asked.append(settings)
        return OFFERS

    model = ModelId("hf-inference", "a/one")
    prices = PriceList(ONLINE, read)
    assert isinstance(prices.of(model), Unpriced)
    for _ in range(3):
        prices.prepare(model)
    eventually(lambda: isinstance(prices.of(model), Tariff))
    assert len(asked) == 1


def test_a_router_that_does_not_answer_is_asked_again() -> None:
    asked: list[Settings] = []

    def read(settings: Settings) -> Offers:
        asked.append(settings)
        raise ServerFailure("down")

    prices = PriceList(ONLINE, read)
    for times in (1, 2):
        prices.prepare(ModelId("hf-inference", "a/one"))
        eventually(lambda times=times: len(asked) == times and prices._asked < 0)  # type: ignore[misc]
    assert isinstance(prices.of(ModelId("hf-inference", "a/one")), Unpriced)


@pytest.mark.parametrize("name", ["gguf:guide", "transformers:guide", "echo:any", "ollama:llama3", "nowhere:x"])
def test_what_runs_on_this_machine_has_no_price(name: str) -> None:
    endpoint = Endpoint(name="ollama", base_url="http://127.0.0.1:11434/v1")
    prices = PriceList(Settings(api=ApiSettings(endpoints=(endpoint,))))
    assert prices.of(ModelId.parse(name)) is None


def test_own_prices_win_and_may_hold_for_all_of_an_endpoint() -> None:
    settings = Settings(api=ApiSettings(prices={"openai:gpt-4o": (7.0, 7.0), "openai:*": (1.0, 1.0)}))
    found = [PriceList(settings).of(ModelId("openai", name)) for name in ("gpt-4o", "gpt-9")]
    assert [price.of(Usage(1_000_000)) for price in found if isinstance(price, Tariff)] == [7.0, 1.0]


def test_an_endpoint_of_ones_own_at_the_hub_has_no_price_a_token() -> None:
    settings = Settings(api=ApiSettings(hf_inference_url="https://mine.endpoints.example/v1"))
    assert isinstance(PriceList(settings).of(ModelId("hf-inference", "a/one")), Unpriced)


@pytest.mark.parametrize("value", ['{"a:b": [1]}', '{"a:b": [-1, 1]}', '{"ab": [1, 1]}', '{"a:b": "dear"}', "cheap"])
def test_prices_that_are_none_are_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRICES", value)
    with pytest.raises(InvalidSetting):
        Settings.load()


def test_prices_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRICES", '{"mine:*": [0.5, 1.5], "mine:big": [5, 15, 0.5]}')
    assert Settings.load().api.prices == {"mine:*": (0.5, 1.5), "mine:big": (5.0, 15.0, 0.5)}


# an answer

PRICE = own((1000.0, 2000.0))  # a tenth of a cent and two a token
HI = [Message("user", "x" * 40)]


def test_what_the_service_says_wins() -> None:
    told = Cost(0.25, source="told")
    assert cost(PRICE, HI, answer("hello", Usage(10, 2), cost=told)) == told
    assert cost(None, HI, answer("hello", Usage(10, 2), cost=told)) == told


def test_counted_tokens_give_an_exact_cost() -> None:
    found = cost(PRICE, HI, answer("hello", Usage(7, 2)))
    assert found == Cost(0.011, source=PRICE.source)
    assert not found.estimated


@pytest.mark.parametrize("usage", [None, Usage(0, 2, estimated=True)])
def test_uncounted_tokens_are_counted_by_letters_and_marked(usage: Usage | None) -> None:
    found = cost(PRICE, HI, answer("four" * 3, usage))
    assert found is not None
    assert found.amount == pytest.approx(10 * 0.001 + 3 * 0.002)
    assert found.estimated


def test_of_an_answer_that_goes_on_only_the_new_text_counts() -> None:
    found = cost(PRICE, [], answer("four" * 3), before="four" * 2)
    assert found is not None
    assert found.amount == pytest.approx(0.002)


def test_what_is_not_known_is_no_zero() -> None:
    found = cost(Unpriced("No price."), HI, answer("hello", Usage(7, 2)))
    assert found == Cost(None, "No price.")
    assert not found.estimated
    assert ("cost –", "No price.") in figures(answer("hello", Usage(7, 2), cost=found))


def test_nothing_is_shown_where_nothing_is_paid() -> None:
    refused = answer(error=ServerFailure("no"), finish_reason="error")
    assert cost(PRICE, HI, refused) is cost(None, HI, answer("hello", Usage(7, 2))) is None
    assert total([None, None]) == Spent()
    assert not Spent()


# before it is sent


def test_what_a_prompt_will_cost() -> None:
    assert expected(PRICE, HI, 50) == Expected(
        Cost(0.01, "tokens counted by letters", PRICE.source), Cost(0.11, "tokens counted by letters", PRICE.source)
    )
    assert expected(PRICE, HI, None).most is None
    assert expected(Unpriced("No."), HI, 50) == Expected(Cost(None, "No."))


# through the app

needs_openai = needs("openai")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with FaultServer() as server:
        told = {"prompt_tokens": 7, "completion_tokens": 2, "cost": 0.00042}
        last = event({}, "stop", choices=[], usage=told, provider="Somebody")
        server.once("whole", *(streamed(event("Hello"), FIN, last, DONE) for _ in range(2)))
        endpoints = {"paid": "good", "tells": "whole", "free": "good"}
        named = tuple(Endpoint(name=name, base_url=server.url(fault)) for name, fault in endpoints.items())
        api = ApiSettings(endpoints=named, prices={"paid:*": (1000.0, 2000.0)}, retries=0)
        chat = ChatSettings(columns=("paid:m", "tells:m", "free:m"), data_dir=Path("data"))
        with Engine(Settings(api=api, chat=chat)) as made:
            yield made


@needs_openai
def test_a_cost_is_kept_with_the_answer_and_summed_up(engine: Engine) -> None:
    boards = Boards(engine)
    board = boards.get(None)
    for _ in range(2):
        assert board.send("hi")
        eventually(lambda: not board.active())
    costs = [[turn.answer.cost for turn in column.turns] for column in board.columns()]
    assert [found.amount if found else None for found, _ in costs] == [pytest.approx(0.011), 0.00042, None]
    assert board.columns()[1].turns[0].answer.provider == "Somebody"
    keys = [column.key for column in board.columns()]
    assert [board.spent(key).paid for key in keys] == [2, 2, 0]
    assert board.spent().amount == pytest.approx(2 * (0.011 + 0.00042))

    again = engine.store.read(boards.owner(board.id), board.chat)
    assert again is not None
    assert [turn.answer.cost for turn in again.turns] == [turn.answer.cost for turn in board.kept().turns]
    assert from_json(to_json(again, {}))[0].turns == again.turns


@needs_openai
def test_the_page_says_what_a_prompt_will_cost(engine: Engine) -> None:
    board = Boards(engine).get(None)
    html = expected_html(board.expected("x" * 40))
    assert "Sending costs about $0.010, with the answers at most" in html
    assert "paid" in html
    assert "free" not in html
    assert expected_html([]) == ""


def test_an_answer_that_is_stopped_is_paid_as_far_as_it_came() -> None:
    go, model = Event(), ModelId("fake", "a")
    settings = Settings(api=ApiSettings(prices={"fake:a": (1000.0, 2000.0)}))
    with Engine(settings, connect=Fakes(until(go, "four" * 5)).connect) as engine:
        run = engine.start(model, HI)
        eventually(lambda: bool(run.newest.snapshot.text))
        run.stop()
        found = run.newest.snapshot.cost
        go.set()
    assert found is not None
    assert found.amount == pytest.approx(0.01 + 0.01)
    assert found.estimated


def test_a_column_that_was_asked_again_has_cost_twice() -> None:
    settings = Settings(api=ApiSettings(prices={"fake:a": (1000.0, 2000.0)}))
    with Engine(settings, connect=Fakes(says("four")).connect) as engine:
        board = Board(engine, [ModelId("fake", "a")])
        assert board.send("four")
        eventually(lambda: not board.active())
        once = board.spent()
        board.regenerate(board.columns()[0].key)
        eventually(lambda: not board.active())
        assert once.amount > 0
        assert board.spent().amount == pytest.approx(2 * once.amount)
        board.clear()
        assert board.spent().paid == 2
