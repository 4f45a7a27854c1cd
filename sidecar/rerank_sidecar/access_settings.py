"""The settings of who may ask and what is encrypted; docs/security.md explains them together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode


class AccessSettings(BaseSettings):
    """Tokens, certificates, and the listener that needs neither."""

    auth_tokens: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        validation_alias=AliasChoices(
            "RERANK_SIDECAR_AUTH_TOKENS", "AUTHENTICATION_ALLOWED_TOKENS"
        ),
        description="Bearer tokens that are let in, separated by commas; without any, everybody "
        "is. Also read from `AUTHENTICATION_ALLOWED_TOKENS`, as the stock container does.",
    )
    auth_tokens_file: Path | None = Field(
        None,
        description="File with more tokens, one a line. Read again when it changes.",
    )
    metrics_auth: bool = Field(False, description="Ask for a token at `/metrics`, too.")
    weaviate_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of a second HTTP listener for Weaviate's transformers module alone, "
        "which cannot send a token and needs none there; 0 picks a free one.",
    )
    weaviate_host: str = Field(
        "127.0.0.1", description="Address of that listener; one that only Weaviate can reach."
    )
    weaviate_tls: bool = Field(
        False,
        description="Encrypt that listener, too. Clients need no certificate there.",
    )
    tls_certificate: Path | None = Field(
        None,
        description="Certificate chain (PEM) of both doors; they speak TLS if it is set. Read "
        "again when it changes.",
    )
    tls_key: Path | None = Field(None, description="Its private key (PEM, not encrypted).")
    tls_client_ca: Path | None = Field(
        None,
        description="Authorities (PEM) of client certificates; if set, who has none is refused.",
    )

    @field_validator("auth_tokens", mode="before")
    @classmethod
    def _split_tokens(cls, given: Any) -> Any:  # noqa: ANN401
        return split_tokens(given) if isinstance(given, str) else given


def split_tokens(text: str) -> tuple[str, ...]:
    """Take tokens apart that commas or line ends separate, with any spaces around them.

    Raises:
        ValueError: there is none, though somebody meant to set some.
    """
    tokens = tuple(filter(None, (each.strip() for each in re.split(r"[,\r\n]", text))))
    if not tokens:
        raise ValueError("has no token in it")
    return tokens
