"""How the rate of reading is told from batches that begin and end."""

from __future__ import annotations

import pytest

from rerank_sidecar.batching.throughput import Running, Throughput


class Machine:
    """Runs batches on a clock of its own."""

    def __init__(self, workers: int, tokens_per_s: float) -> None:
        self.throughput = Throughput(workers, tokens_per_s)
        self.workers = workers
        self.now = 100.0

    def run(self, tokens: int, seconds: float, *, failed: bool = False) -> None:
        """Let every worker run one batch, all at the same time."""
        begun = [self.throughput.begin(tokens, self.now) for _ in range(self.workers)]
        self.now += seconds
        self.end(*begun, failed=failed)

    def end(self, *begun: Running, failed: bool = False) -> None:
        for running in begun:
            self.throughput.end(running, self.now, failed=failed)

    @property
    def rate(self) -> float:
        return self.throughput.tokens_per_s


def test_it_starts_from_what_it_is_told() -> None:
    assert Machine(2, 1234.5).rate == 1234.5


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("told", [10.0, 50_000.0, 1e9])
def test_it_comes_to_what_all_workers_do_together(workers: int, told: float) -> None:
    machine = Machine(workers, told)
    for _ in range(20):
        machine.run(1000, 0.1)
    assert machine.rate == pytest.approx(workers * 10_000, rel=0.05)


def test_idle_time_changes_nothing() -> None:
    machine = Machine(2, 1000.0)
    for _ in range(40):
        machine.run(1000, 0.1)
        machine.now += 500.0
    assert machine.rate == pytest.approx(20_000)


def test_batches_that_overlap_are_not_counted_twice() -> None:
    machine = Machine(2, 1000.0)
    running = [machine.throughput.begin(1000, machine.now)]
    for _ in range(60):
        machine.now += 0.05
        running.append(machine.throughput.begin(1000, machine.now))
        machine.now += 0.05
        machine.end(running.pop(0))
    # Each takes 0.15 s, 0.1 s of which another one runs beside it.
    assert machine.rate == pytest.approx(2 * 1000 / 0.15)


def test_a_worker_alone_tells_nothing() -> None:
    machine = Machine(2, 20_000.0)
    for _ in range(40):
        alone = machine.throughput.begin(1000, machine.now)
        machine.now += 0.05
        machine.end(alone)
    assert machine.rate == 20_000.0


@pytest.mark.parametrize("seconds", [1e-9, 0.0, 3600.0])
def test_one_odd_pass_does_not_throw_it(seconds: float) -> None:
    machine = Machine(1, 1000.0)
    for _ in range(30):
        machine.run(1000, 0.1)
    machine.run(1000, seconds)
    assert machine.rate == pytest.approx(10_000)


def test_failures_and_empty_sequences_tell_nothing() -> None:
    machine = Machine(1, 1000.0)
    for _ in range(40):
        machine.run(1000, 1e-3, failed=True)
        machine.run(0, 1e-3)
    assert machine.rate == 1000.0


def test_it_follows_a_machine_that_slows_down() -> None:
    machine = Machine(2, 1000.0)
    for _ in range(40):
        machine.run(1000, 0.1)
    for _ in range(20):
        machine.run(1000, 1.0)
    assert machine.rate == pytest.approx(2000)


def test_long_and_short_batches_count_by_their_time() -> None:
    machine = Machine(1, 1000.0)
    for _ in range(30):
        machine.run(1000, 0.1)
        machine.run(100, 0.02)
    assert machine.rate == pytest.approx(1100 / 0.12, rel=0.01)


def test_what_is_left_of_running_batches_shrinks_to_nothing() -> None:
    machine = Machine(2, 20_000.0)
    first = machine.throughput.begin(1000, machine.now)
    machine.now += 0.05
    machine.throughput.begin(200, machine.now)
    assert machine.throughput.tokens_left(machine.now) == pytest.approx(700)
    assert machine.throughput.tokens_left(machine.now + 0.04) == pytest.approx(100)
    assert machine.throughput.tokens_left(machine.now + 10) == 0
    machine.end(first)
    assert machine.throughput.tokens_left(machine.now) == pytest.approx(200)
