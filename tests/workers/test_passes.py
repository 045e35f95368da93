"""One pass for all answers or one for each: what was quicker is done, and found anew now and then."""

from __future__ import annotations

import pytest

from multimodel.workers.passes import AGAIN, TRIES, Passes


def steps(passes: Passes, answers: int, seconds: tuple[float, float], count: int) -> list[bool]:
    """What is chosen in so many steps, which take this long together and apart."""
    chosen = []
    for _ in range(count):
        together = passes.together(answers)
        passes.took(answers, together, seconds[not together])
        chosen.append(together)
    return chosen


@pytest.mark.parametrize(
    ("seconds", "together"),
    [((0.017, 0.009), False), ((0.027, 0.037), True), ((0.0100, 0.0097), True)],
    ids=["apart", "together", "a difference too small to tell"],
)
def test_both_ways_are_tried_and_the_quicker_one_stays(seconds: tuple[float, float], together: bool) -> None:
    found = steps(Passes(), 2, seconds, 100)
    assert found[: 2 * TRIES] == [True] * TRIES + [False] * TRIES
    assert set(found[2 * TRIES :]) == {together}


def test_each_number_of_answers_has_its_own_choice() -> None:
    passes = Passes()
    steps(passes, 2, (0.017, 0.009), 10)
    steps(passes, 8, (0.027, 0.037), 10)
    assert (passes.together(1), passes.together(2), passes.together(8)) == (True, False, True)


def test_a_step_that_others_held_up_changes_nothing() -> None:
    passes = Passes()
    steps(passes, 2, (0.017, 0.009), 10)
    passes.took(2, False, 5.0)
    assert not passes.together(2)


def test_what_has_changed_is_found_in_the_end() -> None:
    passes = Passes()
    steps(passes, 2, (0.017, 0.009), 10)
    assert steps(passes, 2, (0.004, 0.009), AGAIN)[-1]


def test_with_other_threads_everything_is_measured_anew() -> None:
    passes = Passes()
    steps(passes, 2, (0.017, 0.009), 10)
    passes.restart()
    assert passes.together(2)
