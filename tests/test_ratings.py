"""Ratings: the shipped snapshots, newer ones that are imported, and names that are never guessed."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from multimodel.errors import BrokenFile
from multimodel.ratings import Rating, import_table, key, parse, ratings, table, win_probability
from multimodel.settings import ModelSettings, Settings

from .support import DATA, needs_data

DAY = date(2026, 1, 2)
ARENA = DATA / "arena"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models=ModelSettings(cache_dir=tmp_path / "cache"))


# what is shipped


def test_every_rating_has_a_score_an_interval_and_a_day(settings: Settings) -> None:
    found = ratings(settings)
    days = [snapshot.day for snapshot in found.snapshots]
    assert days == sorted(days, reverse=True) and len(days) >= 3
    for snapshot in found.snapshots:
        assert snapshot.source and snapshot.url.startswith("https://")
        scores = [rating.score for rating in snapshot.ratings]
        assert scores == sorted(scores, reverse=True) and len(scores) >= 50
        for rating in snapshot.ratings:
            assert rating.low is not None and rating.high is not None
            assert rating.low <= rating.score <= rating.high
            assert rating.day == snapshot.day


def test_every_arena_name_of_the_table_is_one_the_arena_uses(settings: Settings) -> None:
    found = ratings(settings)
    rated = {key(rating.name) for snapshot in found.snapshots for rating in snapshot.ratings}
    named = {name for names in found.names.values() for name in names}
    assert named <= rated
    assert len(found.names) > 100


@needs_data("arena")
def test_the_shipped_scores_are_those_of_their_sources(settings: Settings) -> None:
    newest, catalogue, old = ratings(settings).snapshots
    rows = json.loads((ARENA / "arena_ai_text_2026-04-19.json").read_text())["models"]
    assert [(r.name, r.score, r.votes) for r in newest.ratings[:3]] == [
        (row["model"], row["score"], row["votes"]) for row in rows[:3]
    ]
    full = json.loads((ARENA / "arena_catalog_leaderboard-text.json").read_text())["full"]
    assert {r.name for r in catalogue.ratings} == set(full)
    assert all(abs(r.score - full[r.name]["rating"]) <= 0.05 for r in catalogue.ratings)
    assert old.of(["gemma-2-2b-it"]) is not None


# names


def test_a_repository_gets_the_newest_rating_of_its_usual_mode(settings: Settings) -> None:
    found = ratings(settings).of("moonshotai/Kimi-K2.5")
    assert found and (found.name, found.day) == ("kimi-k2.5-instant", date(2026, 4, 19))


def test_a_copy_is_rated_by_the_model_it_was_made_of(settings: Settings) -> None:
    found = ratings(settings)
    assert found.of("ggml-org/gemma-3-27b-it-GGUF", "google/gemma-3-27b-it") == found.of("Google/Gemma-3-27B-it")


@pytest.mark.parametrize("repository", ["meta-llama/Llama-3.1-8B", "someone/gemma-3-27b-it", "gemma-3-27b-it", ""])
def test_what_is_not_named_is_not_guessed(settings: Settings, repository: str) -> None:
    assert ratings(settings).of(repository) is None


def test_names_lead_to_repositories(settings: Settings) -> None:
    assert ratings(settings).repository("GLM-4.7") == "zai-org/GLM-4.7"
    assert ratings(settings).repository("gpt-5.4-high") == ""


# one against another


def test_two_models_are_compared_in_the_newest_snapshot_with_both(settings: Settings) -> None:
    pair = ratings(settings).pair("Gemma-3-27B-it", "gpt-oss-20b")
    assert pair and pair[0].day == pair[1].day == date(2025, 12, 11)
    assert ratings(settings).pair("gemma-3-27b-it", "nobody") is None


def test_the_probability_is_that_of_elo() -> None:
    assert win_probability(1000, 1400) == pytest.approx(1 / 11)
    assert win_probability(1700, 1300) + win_probability(1300, 1700) == pytest.approx(1)


# newer tables

FORMS = {
    "arena.ai": json.dumps(
        {
            "meta": {
                "last_updated": None,
                "fetched_at": "2026-10-01T04:38:02+00:00",
                "source_url": "https://a.example",
            },
            "models": [{"rank": 1, "model": "A", "vendor": "v", "license": "l", "score": 1500, "ci": 7, "votes": 90}],
        }
    ),
    "catalogue": json.dumps({"full": {"A": {"rating": 1500, "rating_q025": 1493, "rating_q975": 1507}}, "coding": {}}),
    "csv": "﻿rank,Model,arena_score,95_pct_ci,votes\n1,A,1500,+7/-7,90\n2,B,,,\n",
    "plain csv": 'name,elo,lower,upper\nA,"1,500",1493,1507\n',
    "rows": json.dumps([{"name": "A", "rating": 1500, "ci": "7"}]),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_newer_table_is_taken_in_any_form(settings: Settings, form: str) -> None:
    shipped = ratings(settings)
    snapshot = import_table(FORMS[form], "mine.json", settings, date(2026, 10, 1))
    assert snapshot.day == date(2026, 10, 1)
    (rating,) = snapshot.ratings
    assert (rating.name, rating.score, rating.low, rating.high) == ("A", 1500, 1493, 1507)
    assert rating.votes in (90, None)
    assert ratings(settings).snapshots == (snapshot, *shipped.snapshots)


def test_a_table_of_the_same_day_takes_the_place_of_the_one_before(settings: Settings) -> None:
    import_table(FORMS["rows"], "one", settings, DAY)
    import_table(FORMS["csv"], "two", settings, DAY)
    assert [s.source for s in ratings(settings).snapshots if s.day == DAY] == ["two"]


@pytest.mark.parametrize(
    "text",
    ["", "hello", "{", "[]", "[1, 2]", '{"models": 3}', '{"models": [{"model": "A", "score": "NaN"}]}', "model\nA\n",
     '[{"name": "A", "rating": -5}]', '{"meta": [], "models": []}', "[" * 100_000, '[{"name": "A", "rating": 1e308}]'],
)  # fmt: skip
def test_what_is_no_table_is_refused_and_changes_nothing(settings: Settings, text: str) -> None:
    before = ratings(settings)
    with pytest.raises(BrokenFile) as caught:
        import_table(text, "mine.json", settings, DAY)
    assert "mine.json" in str(caught.value) and "CSV" in caught.value.hint
    assert ratings(settings) == before


def test_a_damaged_import_is_left_out(settings: Settings) -> None:
    import_table(FORMS["rows"], "one", settings, DAY)
    (file,) = (settings.models.cache_dir / ".multimodel/ratings").iterdir()
    file.write_text('{"snapshots": [{"day": "soon"}]}')
    assert DAY not in [snapshot.day for snapshot in ratings(settings).snapshots]


def test_a_table_reads_back_as_it_was_written() -> None:
    snapshot = parse(FORMS["arena.ai"], "s", DAY)
    again = json.loads(table([snapshot]))["snapshots"][0]
    assert [Rating(*row, day=snapshot.day) for row in again["ratings"]] == list(snapshot.ratings)
