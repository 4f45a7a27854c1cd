"""The lexical model, which is code alone."""

from __future__ import annotations

from pathlib import Path

from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.loading.family import Loading, NoOptions
from rerank_sidecar.models.builtin import LEXICAL
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.settings import Settings


class LexicalFamily:
    """BM25 over words and characters: `--model lexical`."""

    name = "lexical"

    def claims(self, source: str) -> bool:
        """Tell whether the lexical model is meant."""
        return source == LEXICAL

    def claims_folder(self, folder: Path) -> bool:
        """There are no files of it."""
        return False

    def prepare(self, folder: Path, settings: Settings) -> None:
        """There is nothing to do."""

    async def load(self, loading: Loading) -> Reranker:
        """Give the reranker."""
        loading.options(NoOptions)
        source = loading.settings.model
        if not self.claims(source):
            raise InvalidSetting(f"family: {self.name} is a model by itself, it runs no {source!r}")
        return LexicalReranker(loading.name)
