"""Every family of rerankers, in the order in which they are asked whether a model is theirs."""

from __future__ import annotations

from pathlib import Path

from rerank_sidecar.errors import InvalidSetting, ModelNotServable
from rerank_sidecar.loading.bi_encoder import BiEncoderFamily
from rerank_sidecar.loading.cascade import CascadeFamily
from rerank_sidecar.loading.cross_encoder import CrossEncoderFamily
from rerank_sidecar.loading.ensemble import EnsembleFamily
from rerank_sidecar.loading.fallback import FallbackFamily
from rerank_sidecar.loading.family import Family
from rerank_sidecar.loading.late_interaction import LateInteractionFamily
from rerank_sidecar.loading.lexical import LexicalFamily
from rerank_sidecar.loading.llm_listwise import ListwiseFamily
from rerank_sidecar.loading.llm_pointwise import LlmPointwiseFamily
from rerank_sidecar.loading.remote import RemoteFamily
from rerank_sidecar.loading.shadow import ShadowFamily
from rerank_sidecar.loading.triton import TritonFamily
from rerank_sidecar.models.checkpoint import architectures
from rerank_sidecar.models.resolve import model_folder
from rerank_sidecar.settings import Settings

FAMILIES: tuple[Family, ...] = (
    LateInteractionFamily(),
    LexicalFamily(),
    ShadowFamily(),
    ListwiseFamily(),
    FallbackFamily(),
    EnsembleFamily(),
    CascadeFamily(),
    RemoteFamily(),
    TritonFamily(),
    BiEncoderFamily(),
    CrossEncoderFamily(),
    LlmPointwiseFamily(),
)


def find_family(settings: Settings) -> Family:
    """Find the family of `settings.model`, fetching its files where they alone can tell; blocks.

    Raises:
        InvalidSetting: `settings.family` is none.
        ModelUnavailable: the files cannot be had.
        ModelNotServable: they are no reranker that any family knows.
    """
    if settings.family is not None:
        return _named(settings.family)
    for family in FAMILIES:
        if family.claims(settings.model):
            return family
    return _of_folder(model_folder(settings))


def _named(name: str) -> Family:
    for family in FAMILIES:
        if family.name == name:
            return family
    known = ", ".join(each.name for each in FAMILIES)
    raise InvalidSetting(f"family: there is no {name!r}; there are {known}")


def _of_folder(folder: Path) -> Family:
    for family in FAMILIES:
        if family.claims_folder(folder):
            return family
    if not (folder / "config.json").is_file():
        raise ModelNotServable(f"{folder} has no config.json, so it is no Hugging Face model")
    found = ", ".join(architectures(folder)) or "none named"
    raise ModelNotServable(
        f"{folder} is of no family that is known here, such as a cross-encoder, whose architecture "
        f"is *ForSequenceClassification; found {found}"
    )
