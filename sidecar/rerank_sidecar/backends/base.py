"""The seam to a runtime: a batch of token sequences in, one array per sequence out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One sequence as a transformer reads it, special tokens included.

    Both arrays are int64 of shape [tokens]; `type_ids` says which segment a token belongs to.
    """

    token_ids: npt.NDArray[np.int64]
    type_ids: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What a backend is: the engine's name and version, the device and how many runs at once.

    A run keeps `threads_per_run` cores busy. A sequence costs as much as if its length were the
    next multiple of `length_multiple`.
    """

    engine: str
    engine_version: str
    device: str
    precision: str
    parallel_runs: int
    length_multiple: int = 1
    threads_per_run: int = 1


class Backend(Protocol):
    """Runs the forward pass of one model; knows nothing of queries and documents."""

    @property
    def info(self) -> BackendInfo:
        """Describe the backend."""
        ...

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        """Run one batch and give an array per sequence, in order, without padding.

        An array is [labels] for a classifier and [tokens, dimension] for an encoder, float32, and
        owns its memory. Safe to call from `info.parallel_runs` threads at once; releases the
        interpreter lock while it computes. Rows do not depend on their neighbours in the batch.

        Raises:
            BackendFailed: the runtime refused or failed.
        """
        ...

    def warm_up(self) -> None:
        """Run once so that the first request does not pay for compilation."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...
