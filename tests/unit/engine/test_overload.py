"""Offered several times what it can do, the server does as much good as at its capacity."""

import random
from functools import partial

import pytest

from rerank_sidecar.errors import Overloaded
from rerank_sidecar.settings import Settings
from tests.unit.engine.simulation import (
    TOKENS_OF_DOCUMENT,
    TOKENS_PER_S,
    Outcomes,
    Search,
    Server,
    poisson,
)

SECONDS = 120.0


def capacity(documents: float) -> float:
    """Give how many requests of so many documents the server answers in a second."""
    return TOKENS_PER_S / TOKENS_OF_DOCUMENT / documents


def searches(load: float, at_once: int, admission: bool = True) -> float:
    """Give the goodput in whole searches of 100 documents, as a share of the capacity."""
    server, outcomes = Server(Settings(admission=admission)), Outcomes()
    for query, time in enumerate(poisson(load * capacity(100), SECONDS, seed=3)):
        server.at(time, partial(Search, server, query, 100, at_once, outcomes))
    server.run(SECONDS)
    return outcomes.good / (capacity(100) * SECONDS)


@pytest.mark.parametrize("load", [2, 5, 10])
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_whole_searches_are_answered_at_capacity(load: float, at_once: int) -> None:
    assert searches(load, at_once) > 0.98


def test_without_admission_hardly_any_is() -> None:
    assert searches(5, at_once=2, admission=False) < 0.2


@pytest.mark.parametrize("load", [2, 5, 10])
@pytest.mark.parametrize(
    ("documents", "timeout_s"), [(20, 0.5), (20, 2.0), (100, 1.0), (100, 5.0), (1000, 10.0)]
)
def test_whoever_is_let_in_is_answered_in_time(
    load: float, documents: int, timeout_s: float
) -> None:
    server, outcomes = Server(), Outcomes()
    for time in poisson(load * capacity(documents), SECONDS, seed=3):
        server.at(time, lambda: ask(server, documents, timeout_s, outcomes))
    server.run(SECONDS)
    let_in = outcomes.offered - outcomes.refused
    assert server.late <= 0.04 * let_in
    assert outcomes.good > 0.85 * capacity(documents) * SECONDS


@pytest.mark.parametrize("load", [5, 10])
def test_large_and_small_hurried_and_patient_side_by_side(load: float) -> None:
    server, chance = Server(), random.Random(5)  # noqa: S311
    sizes = (1, 5, 20, 100, 100, 600)
    good_documents = 0

    def arrive() -> None:
        documents = chance.choice(sizes)

        def count(in_time: bool) -> None:
            nonlocal good_documents
            good_documents += documents * in_time

        try:
            server.ask(documents, chance.choice((1, 3, 10, 30)), count)
        except Overloaded:
            return

    for time in poisson(load * capacity(sum(sizes) / len(sizes)), SECONDS, seed=3):
        server.at(time, arrive)
    server.run(SECONDS)
    assert good_documents > 0.95 * capacity(1) * SECONDS
    assert server.late <= 3


def test_when_all_is_done_nothing_is_left_in_the_ledger() -> None:
    server, outcomes = Server(), Outcomes()
    for query, time in enumerate(poisson(20, 20, seed=4)):
        server.at(time, partial(Search, server, query, 70, 2, outcomes))
    server.run(60)
    assert not server.jobs
    server.now += 1
    assert server.admission.work_s == 0


def ask(server: Server, documents: int, timeout_s: float, outcomes: Outcomes) -> None:
    outcomes.offered += 1

    def count(in_time: bool) -> None:
        outcomes.good += in_time

    try:
        server.ask(documents, timeout_s, count)
    except Overloaded:
        outcomes.refused += 1
