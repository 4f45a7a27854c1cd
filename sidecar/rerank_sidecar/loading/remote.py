"""Models of other servers: `--model` with an engine and an address, as `tei:http://tei:8080`."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from rerank_sidecar.errors import InvalidSetting, MissingExtra
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.rerankers.base import Reranker, RerankerInfo
from rerank_sidecar.rerankers.remote.base import Access, Remote, Target, Traits
from rerank_sidecar.rerankers.remote.calls import CallLimits, RemoteCalls
from rerank_sidecar.rerankers.remote.engines import Engine, engine_of
from rerank_sidecar.rerankers.remote.options import ConnectionOptions, RemoteOptions
from rerank_sidecar.rerankers.remote.parts import Portions
from rerank_sidecar.rerankers.remote.reranker import RemoteReranker
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings


class RemoteFamily:
    """Models that other servers run: providers' APIs, inference servers, other sidecars."""

    name = "remote"

    def claims(self, source: str) -> bool:
        """Tell whether a source begins with the name of an engine and a colon."""
        return engine_of(source) is not None

    def claims_folder(self, folder: Path) -> bool:
        """There are no files of it."""
        return False

    def prepare(self, folder: Path, settings: Settings) -> None:
        """There is nothing to do."""

    async def load(self, loading: Loading) -> Reranker:
        """Open the connections and ask the server what it is, as far as it tells.

        A server that does not answer keeps nobody from starting, unless nothing is known of its
        scores without it.

        Raises:
            InvalidSetting: the address or an option is wrong, or there is no key.
            MissingExtra: the part of the package that asks other servers is not installed.
            ModelUnavailable: only the server could tell what its scores mean, and does not.
            ModelNotServable: it does not rerank.
        """
        require_remote_extra()
        engine, target = _parsed(loading.settings.model)
        options = loading.options(engine.wire(target).options)
        if target.is_grpc:
            remote = _made(engine, target, options)  # its channel belongs to the event loop
        else:
            remote = await asyncio.to_thread(_made, engine, target, options)
        loading.stack.push_async_callback(remote.close)
        traits = _overridden(await remote.learn(), options)
        limits = CallLimits(options.timeout_s, options.max_tries, options.max_concurrency)
        return RemoteReranker(
            _info(loading, target, traits, options),
            traits,
            RemoteCalls(loading.name, remote, limits),
            Portions(traits.max_documents, options.max_bytes_per_call, traits.max_characters),
        )


def require_remote_extra() -> None:
    """Make sure that other servers can be asked.

    httpx would log each request at INFO, httpcore each header of an answer at DEBUG, and botocore
    what it signs, session tokens included.

    Raises:
        MissingExtra: they cannot.
    """
    if find_spec("httpx") is None or find_spec("tenacity") is None:
        raise MissingExtra("remote", "asking other servers")
    quieten("httpx", "httpcore", "botocore")


def quieten(*loggers: str) -> None:
    """Keep what clients of other servers log of headers, texts and signatures out of the log."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.WARNING)


def access(
    options: ConnectionOptions, key_env: str | None = None, *, is_required: bool = False
) -> Access:
    """Say how a server is reached; the key is that of the options, else of `key_env` if it is set.

    Raises:
        InvalidSetting: there is no key where one is required, or its file cannot be read, or that
            of the authorities is none.
    """
    if options.ca_file is not None:
        _check_authorities(options.ca_file)
    key = _key(options, key_env)
    if key is None and is_required:
        raise InvalidSetting(
            f"there is no API key: set {key_env}, or the family option api_key_env or api_key_file"
        )
    return Access(
        key=key,
        key_scheme=options.api_key_scheme,
        verify=options.verify,
        ca_file=None if options.ca_file is None else str(options.ca_file),
        max_concurrency=options.max_concurrency,
    )


def _check_authorities(file: Path) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except OSError:  # also what OpenSSL says of a file without certificates
        problem = f"family_options.ca_file: {file} is no file of certificates (PEM)"
        raise InvalidSetting(problem) from None


def _key(options: ConnectionOptions, key_env: str | None) -> str | None:
    if options.api_key_file is not None:
        return _key_of_file(options.api_key_file)
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env, "").strip()
        if not key:
            raise InvalidSetting(f"family_options.api_key_env: {options.api_key_env} is not set")
        return _sendable(key, options.api_key_env)
    key = os.environ.get(key_env or "", "").strip()
    return _sendable(key, str(key_env)) if key else None


def _key_of_file(path: Path) -> str:
    try:
        key = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = type(error).__name__
        raise InvalidSetting(
            f"family_options.api_key_file: {path} cannot be read ({problem})"
        ) from None
    if not key:
        raise InvalidSetting(f"family_options.api_key_file: {path} is empty")
    return _sendable(key, str(path))


def _sendable(key: str, where: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise InvalidSetting(f"the API key of {where} has letters that no header can carry")
    return key


def _parsed(source: str) -> tuple[Engine, Target]:
    engine = engine_of(source)
    if engine is None:
        raise InvalidSetting(f"model: {source!r} begins with no engine's name, such as `tei:`")
    return engine, engine.target(source.partition(":")[2])


def _made(engine: Engine, target: Target, options: RemoteOptions) -> Remote:
    # A provider's key is not sent to somebody else's address unless the options say so.
    known = engine.default_url is None or target.is_default
    key_env = engine.key_env if known else None
    how = access(options, key_env, is_required=target.is_default and key_env is not None)
    return engine.wire(target).make(target, options, how)


def _overridden(traits: Traits, options: RemoteOptions) -> Traits:
    limits = [each for each in (traits.max_characters, options.max_characters) if each is not None]
    comparable = traits.comparable_across_requests and traits.score_kind is not ScoreKind.RANK
    return replace(
        traits,
        comparable_across_requests=comparable,
        max_characters=min(limits, default=None),
        max_documents=options.max_documents_per_call or traits.max_documents,
        takes_empty=traits.takes_empty if options.takes_empty is None else options.takes_empty,
        version=options.version or traits.version,
    )


def _info(loading: Loading, target: Target, traits: Traits, options: RemoteOptions) -> RerankerInfo:
    # Scores kept under one version must not outlive a change of what is asked, or of whom.
    asked = f"{target.url} {traits.score_kind} {options.model_dump_json()}"
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    return RerankerInfo(
        name=loading.name,
        version=f"{traits.version}-{digest}",
        family=RemoteFamily.name,
        score_kind=traits.score_kind,
        engine=target.engine,
        source=loading.settings.model,
        max_tokens=traits.max_tokens,
        comparable_across_requests=traits.comparable_across_requests,
        default_long_document_policy=traits.default_policy,
        keep_scores=(
            options.keep_scores and traits.keep_scores and traits.comparable_across_requests
        ),
    )
