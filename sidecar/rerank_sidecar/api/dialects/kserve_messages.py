"""The JSON messages of the Open Inference Protocol (KServe v2)."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

Parameters = Annotated[dict[str, Any], Meta(description="Those that are not known are ignored.")]


class KserveInput(Struct, frozen=True):
    """A tensor of texts: in `data`, flat or nested, or in as many bytes of the binary tail."""

    name: Annotated[str, Meta(description="`query` or `passage`.")]
    datatype: Annotated[str, Meta(description="`BYTES`.")]
    shape: Annotated[list[int], Meta(description="`[n]` or `[n, 1]`.")]
    data: list[Any] | UnsetType = UNSET
    parameters: Annotated[
        Parameters, Meta(description="`binary_data_size`: bytes of the tail that are this tensor.")
    ] = {}


class KserveWantedOutput(Struct, frozen=True):
    """An output that is asked for, by name."""

    name: Annotated[str, Meta(description="`score`, `logit`, `index` or `token_count`.")]
    parameters: Annotated[
        Parameters, Meta(description="`binary_data`: whether it comes in the binary tail.")
    ] = {}


class KserveRequest(Struct, frozen=True):
    """Rows of a query and a passage; one query may stand for all passages."""

    inputs: list[KserveInput]
    outputs: Annotated[
        list[KserveWantedOutput], Meta(description="What is wanted; none: `score`.")
    ] = []
    id: Annotated[str | None, Meta(description="Returned as it is.")] = None
    parameters: Annotated[
        Parameters,
        Meta(
            description="`priority` (1 the highest, 0 the default), `timeout` (microseconds), "
            "`truncate` (`NONE`, `END`, `START`), `binary_data_output`."
        ),
    ] = {}


class KserveOutput(Struct, frozen=True):
    """A tensor of numbers, one for each passage, in `data` or in the binary tail."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | UnsetType = UNSET
    data: list[float] | UnsetType = UNSET


class KserveAnswer(Struct, frozen=True):
    """The outputs that were asked for."""

    model_name: str
    model_version: str
    outputs: list[KserveOutput]
    id: str | UnsetType = UNSET


class KserveError(Struct, frozen=True):
    """Why a call failed."""

    error: str
