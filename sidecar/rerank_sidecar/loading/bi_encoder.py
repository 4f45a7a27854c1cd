"""Bi-encoders: any sentence-transformers model that gives one vector for a text."""

from __future__ import annotations

import logging
from pathlib import Path

from rerank_sidecar.loading.encoders import EncoderOptions, prepare, start_encoder
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.running import warm_up
from rerank_sidecar.models.encoder import EncoderKind, encoder_kind
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.rerankers.bi_encoder import BiEncoderReranker
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings

_LOG = logging.getLogger(__name__)

_COSINE = frozenset({"", "cosine"})


class BiEncoderFamily:
    """One vector for each text, compared by their cosine: `--model` with a folder or a hub id."""

    name = "bi_encoder"

    def claims(self, source: str) -> bool:
        """It has no sources of its own."""
        return False

    def claims_folder(self, folder: Path) -> bool:
        """Tell whether sentence-transformers saved the folder, with pooling."""
        return encoder_kind(folder) is EncoderKind.BI_ENCODER

    def prepare(self, folder: Path, settings: Settings) -> None:
        """Convert and quantise the model, unless that has been done or torch runs it as it is.

        Raises:
            StartupError: it is no bi-encoder that can be run, or a part is not installed.
        """
        prepare(folder, settings, EncoderKind.BI_ENCODER)

    async def load(self, loading: Loading) -> Reranker:
        """Convert the model if need be, run it and warm it up."""
        options = loading.options(EncoderOptions)
        encoder = await start_encoder(loading, EncoderKind.BI_ENCODER, options)
        if encoder.facts.similarity not in _COSINE:
            _LOG.info(
                "%s is compared by cosine, though its authors compare by %s",
                *(loading.name, encoder.facts.similarity),
            )
        reranker = BiEncoderReranker(
            encoder.info(loading, self.name, ScoreKind.COSINE),
            encoder.documents,
            encoder.scheduler,
            encoder.config(loading.settings),
            loading.executor,
            cache=loading.matrix_cache(),
            query_tokenizer=encoder.queries,
        )
        await warm_up(reranker)
        return reranker
