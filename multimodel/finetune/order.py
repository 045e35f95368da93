"""In which order rows train: texts of like length together, so that little is padded, and the same order every time."""

from __future__ import annotations

import random
from collections.abc import Sequence

POOL = 50  # batches among which texts of like length are brought together


def grouped(lengths: Sequence[int], batch: int, seed: int) -> list[int]:
    """The indexes of all rows, to be cut into batches of `batch` rows.

    Drawn at random, brought together by length within pools, the batches drawn again; the longest comes first, so that
    memory is short at once or never. It depends on nothing but the arguments, so a run that resumes sees the same rows.

    >>> lengths = [3, 9, 3, 8, 4, 9, 4, 8]
    >>> order = grouped(lengths, 2, seed=1)
    >>> sorted(order) == list(range(8)), [lengths[i] for i in order][:2]
    (True, [9, 9])
    """
    generator = random.Random(seed)
    rows = list(range(len(lengths)))
    generator.shuffle(rows)
    pools = (rows[start : start + batch * POOL] for start in range(0, len(rows), batch * POOL))
    ordered = [row for pool in pools for row in sorted(pool, key=lambda row: (-lengths[row], row))]
    whole = len(ordered) // batch * batch
    batches = [ordered[start : start + batch] for start in range(0, whole, batch)]
    generator.shuffle(batches)
    if batches:
        longest = max(range(len(batches)), key=lambda i: sum(lengths[row] for row in batches[i]))
        batches[0], batches[longest] = batches[longest], batches[0]
    return [row for rows_of_batch in batches for row in rows_of_batch] + ordered[whole:]


def by_length(lengths: Sequence[int]) -> list[int]:
    """The indexes of all rows, longest first: for judging, where the order does not matter."""
    return sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


def batches_of(lengths: Sequence[int], tokens: int, rows: int) -> list[list[int]]:
    """Batches for prediction, longest first: at most `rows` rows and, padded, `tokens` tokens; one row at least.

    >>> batches_of([2, 5, 2, 2], tokens=8, rows=3)
    [[1], [0, 2, 3]]
    """
    found: list[list[int]] = []
    for row in by_length(lengths):
        last = found[-1] if found else None
        if last and len(last) < rows and (len(last) + 1) * lengths[last[0]] <= tokens:
            last.append(row)
        else:
            found.append([row])
    return found
