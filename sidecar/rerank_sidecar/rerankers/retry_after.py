"""When another server says that it may be asked again."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")

_LONGEST_S = 86_400.0
"""What goes beyond a day is taken for a mistake that no caller should be told."""


def read_retry_after(header: str | None) -> float | None:
    """Read Retry-After (RFC 9110, section 10.2.3) as seconds from now; None if it says nothing.

    It has seconds, of which some servers send fractions, or a date.
    """
    if header is None:
        return None
    if _SECONDS.fullmatch(header.strip()):
        return bounded_s(float(header))
    try:
        then = parsedate_to_datetime(header)
        then = then if then.tzinfo is not None else then.replace(tzinfo=UTC)
        return bounded_s((then - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def bounded_s(seconds: float) -> float | None:
    """Bring what a server said within a day from now; None if it is no number of seconds."""
    return min(max(0.0, seconds), _LONGEST_S) if isfinite(seconds) else None
