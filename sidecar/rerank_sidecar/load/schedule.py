"""How requests are offered: by callers that wait for their answers, or at a rate.

Callers that wait (a closed loop) slow down with the server and so never show what happens past its
capacity. Requests at a rate (an open loop) come whether or not the earlier ones were answered, as
those of many independent users do; see Schroeder, Wierman and Harchol-Balter, "Open Versus
Closed: A Cautionary Tale", NSDI 2006.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """So many callers, each of which asks again as soon as it was answered."""

    callers: int

    def __str__(self) -> str:
        return f"{self.callers} caller{'s' if self.callers > 1 else ''}"


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """So many requests per second on average, whatever becomes of them."""

    rate_per_s: float

    def __str__(self) -> str:
        return f"{self.rate_per_s:g}/s"


Load: TypeAlias = ClosedLoop | OpenLoop


def poisson_arrivals(
    rate_per_s: float, duration_s: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the times at which independent users ask, in seconds from the start, ascending.

    A Poisson process given the number of its events: the number is drawn first, then that many
    uniform times in [0, duration_s) are put in order.
    """
    count = rng.poisson(rate_per_s * duration_s)
    return np.sort(rng.random(count) * duration_s)
