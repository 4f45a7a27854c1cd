"""Every family of rerankers, in the order in which they are asked whether a model is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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

COMBINATIONS: tuple[Family, ...] = (
    ShadowFamily(),
    FallbackFamily(),
    EnsembleFamily(),
    CascadeFamily(),
)
"""Those that are made of other models."""

OF_SOURCES: tuple[Family, ...] = (
    *COMBINATIONS,
    LexicalFamily(),
    ListwiseFamily(),
    RemoteFamily(),
    TritonFamily(),
)
"""Those whose models are told by `--model` alone."""

OF_FILES: tuple[Family, ...] = (
    LateInteractionFamily(),
    BiEncoderFamily(),
    CrossEncoderFamily(),
    LlmPointwiseFamily(),
)
"""Those whose models are folders and hub ids, with or without names of their own besides."""

FAMILIES = (*OF_SOURCES, *OF_FILES)


@dataclass(frozen=True, slots=True)
class FoundFamily:
    """A model's family, and the folder with its files where these had to be looked at."""

    family: Family
    folder: Path | None = None


def find_family(settings: Settings) -> FoundFamily:
    """Find the family of `settings.model`, fetching its files where they alone can tell; blocks.

    Raises:
        InvalidSetting: `settings.family` is none, or the model is plainly of another.
        ModelUnavailable: the files cannot be had.
        ModelNotServable: they are no reranker that any family knows.
    """
    owner = owner_of(settings.model)
    if settings.family is not None:
        family = _named(settings.family)
        if owner is not None and family is not owner:
            raise InvalidSetting(
                f"family: {settings.model!r} is of the family {owner.name}, not {family.name}"
            )
        if owner is None and family not in OF_FILES:
            raise InvalidSetting(
                f"family: {settings.model!r} is no model of the family {family.name}; "
                "docs/rerankers.md tells how its models are named"
            )
        return FoundFamily(family)
    if owner is not None:
        return FoundFamily(owner)
    folder = model_folder(settings)
    return FoundFamily(_of_folder(folder), folder)


def check_members(family: Family, members: Sequence[str]) -> None:
    """Refuse members of what is no combination.

    Raises:
        InvalidSetting: there are any.
    """
    if members and family not in COMBINATIONS:
        combinations = ", ".join(each.name for each in COMBINATIONS)
        raise InvalidSetting(
            f"members: only combinations have them ({combinations}), and not the family "
            f"{family.name}"
        )


def owner_of(source: str) -> Family | None:
    """Find the family that has a source of its own; None for what is a folder or a hub id."""
    return next((family for family in FAMILIES if family.claims(source)), None)


def family_name(folder: Path) -> str | None:
    """Name the family that the files of a folder are a model of, None if they are none."""
    return next((family.name for family in FAMILIES if family.claims_folder(folder)), None)


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
        f"is *ForSequenceClassification, or a language model, *ForCausalLM; found {found}"
    )
