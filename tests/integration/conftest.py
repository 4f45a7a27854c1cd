"""The sidecar of the contract tests, for applications with real stores."""

from tests.contract.conftest import Running, sidecar
from tests.integration.postgres import postgres

__all__ = ["Running", "postgres", "sidecar"]
