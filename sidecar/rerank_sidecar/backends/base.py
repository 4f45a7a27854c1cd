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

    Both arrays are int64 of shape [tokens]; `type_ids` says which segment a token belongs to. Only
    the first `attended` tokens are attended to, None being all; the others attend to those.
    `wanted` are the places of the tokens whose hidden states are asked for, int64 and ascending,
    None being all.
    """

    token_ids: npt.NDArray[np.int64]
    type_ids: npt.NDArray[np.int64]
    attended: int | None = None
    wanted: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def attended_tokens(self) -> int:
        """How many tokens are attended to."""
        return len(self) if self.attended is None else self.attended

    def states(self, hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Take those that are asked for from hidden states [tokens and padding, dimension]."""
        return hidden[: len(self)] if self.wanted is None else hidden[self.wanted]


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What a backend is: the engine's name and version, the device and how many runs at once.

    A run keeps `threads_per_run` cores busy. A sequence costs as much as if its length were the
    next multiple of `length_multiple`, and in a batch as if it were as long as the longest unless
    `is_padded` is false.
    """

    engine: str
    engine_version: str
    device: str
    precision: str
    parallel_runs: int
    length_multiple: int = 1
    threads_per_run: int = 1
    is_padded: bool = True


class Backend(Protocol):
    """Runs the forward pass of one model; knows nothing of queries and documents."""

    @property
    def info(self) -> BackendInfo:
        """Describe the backend."""
        ...

    def run(self, batch: Sequence[TokenSequence]) -> list[npt.NDArray[np.float32]]:
        """Run one batch and give an array per sequence, in order, without padding.

        An array is [labels] for a classifier and [tokens, dimension] for an encoder, of the tokens
        that are `wanted`; it is float32 and owns its memory. Safe to call from
        `info.parallel_runs` threads at once; releases the interpreter lock while it computes. Rows
        do not depend on their neighbours in the batch.

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
