"""The sidecar of the contract tests, for applications with real stores."""

from collections.abc import Iterator

import pytest

from tests.contract.conftest import Running, sidecar
from tests.integration.postgres import postgres
from tests.unit.adapters.every_client import Sidecar, listening_beside
from tests.unit.adapters.toy_vectors import ToyMaxSim

__all__ = ["Running", "postgres", "reads_vectors", "sidecar"]


@pytest.fixture(scope="session")
def reads_vectors() -> Iterator[Sidecar]:
    """A sidecar whose model, a toy, takes two numbers a vector in place of texts."""
    with listening_beside(reranker=ToyMaxSim()) as running:
        yield running
