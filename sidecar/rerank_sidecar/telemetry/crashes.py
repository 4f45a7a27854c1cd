"""Logging what was not foreseen: where it happened, never what it says."""

from __future__ import annotations

import logging
import traceback


def log_crash(logger: logging.Logger, what: str, error: BaseException) -> None:
    """Log the kind of an exception and its frames.

    Its message is left out, because it may quote a document or a query.
    """
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s failed with %s\n%s", what, type(error).__name__, frames)
