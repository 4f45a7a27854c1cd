"""Cross-encoders whose forward pass runs on a KServe v2 server: `--model triton:URL#MODEL`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from rerank_sidecar.backends.base import Backend, BackendInfo
from rerank_sidecar.backends.kserve import (
    InferenceClient,
    InferenceFailed,
    KserveBackend,
    measure_server,
)
from rerank_sidecar.backends.kserve_grpc import KserveGrpcClient
from rerank_sidecar.backends.kserve_http import KserveHttpClient
from rerank_sidecar.backends.measure import MeasuredShape
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import InvalidSetting, ModelUnavailable
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.remote import access, require_remote_extra
from rerank_sidecar.loading.running import engine_name, warm_up
from rerank_sidecar.models.checkpoint import read_checkpoint
from rerank_sidecar.models.resolve import model_folder
from rerank_sidecar.rerankers.base import Reranker, RerankerInfo
from rerank_sidecar.rerankers.cross_encoder import CrossEncoderConfig, CrossEncoderReranker
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.rerankers.remote.addresses import read_address
from rerank_sidecar.rerankers.remote.base import Access, Target
from rerank_sidecar.rerankers.remote.grpc_channel import channel_credentials
from rerank_sidecar.rerankers.remote.http_client import by_the_proxy_of_the_environment, trust
from rerank_sidecar.rerankers.remote.options import ConnectionOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings

_OVERLAP_TOKENS = 64


class TritonOptions(ConnectionOptions):
    """What the server does not tell: how texts become tokens, and what the logit means.

    `tokenizer` is the folder or the hub id of the model that the server runs. Unless they are
    given, its config.json tells the other three.
    """

    tokenizer: str = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=8)
    activation: Literal["identity", "sigmoid"] | None = None
    pad_token_id: int | None = Field(None, ge=0)
    score_tensor: str | None = Field(None, min_length=1)
    version: str = Field("1", min_length=1)


@dataclass(frozen=True, slots=True)
class _Reading:
    """How texts are read for a model."""

    tokenizer_path: Path
    max_tokens: int
    activation: Literal["identity", "sigmoid"]
    pad_token_id: int


class TritonFamily:
    """Texts are tokenised and batched here, batches run on Triton or another KServe v2 server."""

    name = "triton"

    def claims(self, source: str) -> bool:
        """Tell whether a source begins with `triton:`."""
        return source.startswith(f"{self.name}:")

    def claims_folder(self, folder: Path) -> bool:
        """There are no files of it."""
        return False

    def prepare(self, folder: Path, settings: Settings) -> None:
        """There is nothing to do."""

    async def load(self, loading: Loading) -> Reranker:
        """Ask the server what the model takes, time its batches and warm it up.

        Raises:
            InvalidSetting: the address or an option is wrong.
            MissingExtra: the part of the package that asks other servers is not installed.
            ModelUnavailable: the server or the tokenizer cannot be had.
            ModelNotServable: the model takes or gives other tensors.
            BackendFailed: it fails on the first texts that it is given.
        """
        require_remote_extra()
        target = _target(loading.settings.model)
        options = loading.options(TritonOptions)
        reading = await asyncio.to_thread(_reading, loading.settings, options)
        client = _client(target, options, access(options))

        def fit() -> tuple[Backend, MeasuredShape]:
            return _fit(client, target, options, reading, loading.settings)

        running = await loading.start(fit)
        tokenizer = await asyncio.to_thread(TextTokenizer.from_file, reading.tokenizer_path)
        limits = WindowLimits(
            reading.max_tokens,
            overlap_tokens=_OVERLAP_TOKENS,
            max_windows=loading.settings.max_windows,
        )
        reranker = CrossEncoderReranker(
            _info(loading, reading, running.info, options),
            tokenizer,
            running.scheduler,
            CrossEncoderConfig(limits, reading.activation),
            loading.executor,
        )
        await warm_up(reranker)
        return reranker


def _target(source: str) -> Target:
    _, _, address = source.partition(":")
    return read_address(TritonFamily.name, address, kinds=frozenset({"http", "grpc"}))


def _reading(settings: Settings, options: TritonOptions) -> _Reading:
    folder = model_folder(settings.model_copy(update={"model": options.tokenizer}))
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelUnavailable(f"{folder} has no tokenizer.json")
    if (folder / "config.json").is_file():
        told = read_checkpoint(folder)
        return _Reading(
            path,
            options.max_tokens or told.max_tokens,
            options.activation or told.activation.value,
            told.pad_token_id if options.pad_token_id is None else options.pad_token_id,
        )
    if options.max_tokens is None:
        raise InvalidSetting(f"family_options.max_tokens: {folder} has no config.json to tell it")
    return _Reading(
        path, options.max_tokens, options.activation or "identity", options.pad_token_id or 0
    )


def _client(target: Target, options: TritonOptions, how: Access) -> InferenceClient:
    shown = () if how.key is None else (("authorization", f"{how.key_scheme} {how.key}"),)
    if target.is_grpc:
        scheme, _, address = target.url.partition("://")
        return KserveGrpcClient(
            address,
            target.model,
            metadata=shown,
            credentials=None if scheme == "grpc" else channel_credentials(how),
            timeout_s=options.timeout_s,
        )
    with by_the_proxy_of_the_environment():
        return KserveHttpClient(
            target.url,
            target.model,
            headers=dict(shown),
            trusted=trust(how),
            timeout_s=options.timeout_s,
            connections=options.max_concurrency,
        )


def _fit(
    client: InferenceClient,
    target: Target,
    options: TritonOptions,
    reading: _Reading,
    settings: Settings,
) -> tuple[Backend, MeasuredShape]:
    try:
        backend = KserveBackend(
            client,
            output=options.score_tensor,
            parallel_runs=options.max_concurrency,
            max_tries=options.max_tries,
            pad_token_id=reading.pad_token_id,
        )
    except InferenceFailed as failure:
        client.close()
        raise ModelUnavailable(f"{target.url} does not tell of {target.model}: {failure}") from None
    except BaseException:
        client.close()
        raise
    try:
        backend.warm_up()
        shape = measure_server(backend, reading.max_tokens)
    except BaseException:
        backend.close()
        raise
    rows = (settings.max_batch_size, backend.max_batch_size, shape.max_batch_size)
    return backend, replace(
        shape,
        max_batch_size=min(each for each in rows if each is not None),
        max_batch_tokens=settings.max_batch_tokens or shape.max_batch_tokens,
    )


def _info(
    loading: Loading, reading: _Reading, backend: BackendInfo, options: TritonOptions
) -> RerankerInfo:
    is_probability = reading.activation == "sigmoid"
    return RerankerInfo(
        name=loading.name,
        version=options.version,
        family=TritonFamily.name,
        score_kind=ScoreKind.PROBABILITY if is_probability else ScoreKind.RAW_LOGIT,
        engine=engine_name(backend),
        source=loading.settings.model,
        max_tokens=reading.max_tokens,
        max_windows=loading.settings.max_windows,
    )
