"""The options of other servers, as `family_options` or a model's table has them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from rerank_sidecar.score_kinds import ScoreKind


class ConnectionOptions(BaseModel):
    """How another server is reached, and how hard it is tried.

    `timeout_s` is for each try, `max_tries` counts the first. The key is in a file or an
    environment variable; it goes into the header Authorization after `api_key_scheme`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    timeout_s: float = Field(30.0, gt=0)
    max_concurrency: int = Field(8, ge=1)
    max_tries: int = Field(3, ge=1)
    api_key_env: str | None = Field(None, min_length=1)
    api_key_file: Path | None = None
    api_key_scheme: str = Field("Bearer", pattern="^[ -~]+$")
    verify: bool = True
    ca_file: Path | None = None


class RemoteOptions(ConnectionOptions):
    """What can be said about every server that scores; a wire may have options of its own besides.

    `max_bytes_per_call` counts documents in UTF-8. `max_characters` is how much is sent of a query
    and of each document, where the server refuses what is longer. `score_kind` is for models whose
    scores are not what the wire usually carries, or where the wire can be asked for another kind.
    `version` is changed by whoever changes the model behind an address, so that no kept score
    outlives it.
    """

    max_documents_per_call: int | None = Field(None, ge=1)
    max_bytes_per_call: int = Field(1_000_000, ge=1)
    max_characters: int | None = Field(None, ge=1)
    score_kind: ScoreKind | None = None
    version: str | None = Field(None, min_length=1)
    takes_empty: bool | None = None
    keep_scores: bool = True


class HttpOptions(RemoteOptions):
    """Those of servers that are spoken to over HTTP: another path than the wire's own."""

    path: str | None = Field(None, pattern="^/")


class KserveOptions(RemoteOptions):
    """The names of a KServe model's tensors; the defaults are those of NVIDIA's rerankers."""

    query_tensor: str = Field("query", min_length=1)
    document_tensor: str = Field("passage", min_length=1)
    score_tensor: str = Field("logit", min_length=1)
    index_tensor: str | None = Field(None, min_length=1)


class KserveHttpOptions(KserveOptions, HttpOptions):
    """Those of KServe servers that are spoken to over HTTP."""


class BedrockOptions(HttpOptions):
    """The AWS region, if not the one that AWS's own environment or files name."""

    region: str | None = Field(None, min_length=1)
