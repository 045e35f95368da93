"""Makes assets/ratings.json: the facts of public snapshots of the Arena's text leaderboard, with source and day.

    python -m tools.ratings FOLDER

FOLDER holds the snapshots under the names below, as their repositories have them. The scores are the Arena's
(https://arena.ai); only the facts are taken.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from multimodel.ratings import TABLE, parse, table

ASSETS = Path(__file__).resolve().parents[1] / "assets"
SOURCES = (  # file, day, source, address
    (
        "arena_ai_text_2026-04-19.json",
        date(2026, 4, 19),
        "Arena AI, text, the first 50, as collected by oolong-tea-2026/arena-ai-leaderboards at a2694df",
        "https://arena.ai/leaderboard/text",
    ),
    (
        "arena_catalog_leaderboard-text.json",
        date(2025, 12, 11),
        "LMArena, text, all categories together, lmarena/arena-catalog at c9558b6",
        "https://github.com/lmarena/arena-catalog",
    ),
    (
        "lmarena_text_2025-08-06.csv",
        date(2025, 8, 6),
        "LMArena, text, as collected by fboulnois/llm-leaderboard-csv at 44db958",
        "https://github.com/fboulnois/llm-leaderboard-csv",
    ),
)


def main(folder: Path) -> None:
    """Write the table."""
    found = [parse((folder / name).read_text("utf-8"), source, day, url) for name, day, source, url in SOURCES]
    (ASSETS / TABLE).write_text(table(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
