"""The threads of a model that decodes, on a machine whose step times are made up."""

from __future__ import annotations

from multimodel.workers.pace import MOST_PATIENCE, PATIENCE, RECENT, Pace

BARRIER = 20.0  # how much longer a step takes when one of its threads has no core


class Machine:
    """Steps of a second of work, divided among the threads; `free` cores are not busy elsewhere."""

    def __init__(self, share: int, free: int) -> None:
        self.free = free
        self.slower = 1.0
        self.now = 0.0
        self.told: list[int] = []
        self.pace = Pace(self.told.append, share, clock=lambda: self.now)
        self.seconds = 0.0

    def step(self) -> None:
        threads = self.pace.threads
        self.seconds = self.slower / threads * (BARRIER if threads > self.free else 1.0)
        self.now += self.seconds

    def decode(self, steps: int, answers: int = 1) -> None:
        for _ in range(steps):
            self.step()
            self.pace.took(self.seconds, answers)


def test_one_core_is_never_touched() -> None:
    def never() -> None:
        raise AssertionError("no trial where there is nothing to choose")

    machine = Machine(share=1, free=0)
    machine.pace.probe(never)
    machine.decode(1000)
    assert machine.told == []
    assert machine.pace.threads == 1


def test_a_free_machine_gives_the_whole_share() -> None:
    machine = Machine(share=6, free=6)
    machine.pace.probe(machine.step)
    machine.decode(500)
    assert machine.pace.threads == 6


def test_the_trial_never_takes_more_than_what_is_quicker() -> None:
    machine = Machine(share=8, free=3)
    machine.pace.probe(machine.step)
    assert machine.pace.threads == 2
    assert max(machine.told) == 4  # where it saw that it had gone too far


def test_threads_that_bring_nothing_are_left_to_others() -> None:
    machine = Machine(share=8, free=8)

    def bound_by_memory() -> None:
        machine.now += 1.0 / min(machine.pace.threads, 2)

    machine.pace.probe(bound_by_memory)
    assert machine.pace.threads == 2


def test_a_machine_that_gets_busy_is_left_at_once() -> None:
    machine = Machine(share=8, free=8)
    machine.decode(100)
    machine.free = 3
    machine.decode(3 * RECENT)
    assert machine.pace.threads == 2


def test_one_slow_step_changes_nothing() -> None:
    machine = Machine(share=4, free=4)
    machine.decode(100)
    machine.pace.took(99.0, 1)
    machine.decode(100)
    assert machine.told == []


def test_a_machine_that_is_free_again_is_used_again() -> None:
    machine = Machine(share=4, free=1)
    machine.pace.probe(machine.step)
    assert machine.pace.threads == 1
    machine.free = 4
    machine.decode(200)
    assert machine.pace.threads == 4


def test_trying_in_vain_becomes_rare() -> None:
    machine = Machine(share=2, free=1)
    machine.pace.probe(machine.step)
    machine.told.clear()
    machine.decode(int(PATIENCE) + 1)
    assert machine.told == [2, 1]  # a single step was enough to see it
    spent = machine.now
    machine.decode(1000)
    tries = machine.told.count(2) - 1
    assert 4 <= tries <= 4 + (machine.now - spent) / MOST_PATIENCE


def test_a_model_that_is_slower_whatever_it_does_keeps_its_threads() -> None:
    """As the engine computes more a token: half the threads would take twice as long."""
    machine = Machine(share=4, free=4)
    machine.decode(100)
    machine.slower = 3.0
    machine.decode(100)
    assert machine.pace.threads == 4
    assert machine.told == [2, 1, 4]


def test_a_conversation_that_grows_is_no_reason() -> None:
    machine = Machine(share=4, free=4)
    for _ in range(4000):
        machine.slower *= 1.0003
        machine.decode(1)
    assert machine.told == []


def test_another_number_of_answers_is_not_compared() -> None:
    machine = Machine(share=4, free=4)
    machine.decode(100, answers=1)
    machine.slower = 5.0
    machine.decode(100, answers=8)
    assert machine.told == []


def test_a_smaller_share_holds_at_once_and_a_larger_one_brings_back_what_was_useful() -> None:
    machine = Machine(share=8, free=8)
    machine.decode(100)
    machine.pace.allow(3)
    assert machine.told == [3]
    machine.decode(100)
    machine.pace.allow(8)
    assert machine.told == [3, 8]


def test_a_share_that_changes_during_a_trial_ends_it() -> None:
    machine = Machine(share=4, free=1)
    machine.pace.probe(machine.step)
    machine.free = 4
    machine.decode(int(PATIENCE) + 1)
    assert machine.pace.threads == 2  # on trial
    machine.pace.allow(3)
    assert machine.pace.threads == 1
