"""Log lines of the server: text for people or JSON for machines, never with request text."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from rerank_sidecar.settings import LogFormat, Settings

_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure_logging(settings: Settings) -> None:
    """Send the server's log lines to standard error in the format that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = settings.log_format is LogFormat.JSON
    handler.setFormatter(JsonFormatter(_FIELDS) if as_json else logging.Formatter(_FIELDS))
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
