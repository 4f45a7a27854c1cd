"""Reads what a folder says of its encoder, without torch; and what is kept of it once converted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rerank_sidecar.errors import ModelNotServable, StartupError
from rerank_sidecar.models.checkpoint import architectures
from rerank_sidecar.models.json_files import JsonObject, parse_json_file, read_json_object

STANFORD_ARCHITECTURE = "HF_ColBERT"

_MULTI_VECTOR_TYPES = frozenset({"ColBERT", "MultiVectorEncoder"})
"""What PyLate and sentence-transformers call a model with a vector for each token."""

_PYLATE_KEYS = frozenset({"query_prefix", "document_prefix", "do_query_expansion"})


class EncoderKind(StrEnum):
    """Whether an encoder gives a vector for a text or for each token: the family it is of."""

    BI_ENCODER = "bi_encoder"
    MULTI_VECTOR = "late_interaction"


@dataclass(frozen=True, slots=True)
class Expansion:
    """Tokens that make every short query as long as `length`, special tokens included.

    Their vectors take part in MaxSim as if they were the query's own: a model that was trained so
    puts into them what else the query may mean (Khattab and Zaharia, SIGIR 2020, section 3.2: query
    augmentation). Unless they are `attended`, no token attends to them.
    """

    token_id: int
    length: int
    attended: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """The token ids that the library makes of a text, as a query and as a document."""

    text: str
    query_ids: tuple[int, ...]
    document_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """What its library knows of an encoder, as far as texts become vectors by it.

    Prompts stand before texts. `max_tokens` is what is read of a document and `max_query_tokens`
    of a query, special tokens and prompts included. Document tokens of `skipped_token_ids` have no
    vector. `similarity` is what the model's authors compare vectors by. `samples` are how the
    library reads some texts.
    """

    kind: EncoderKind
    dimension: int
    max_tokens: int
    max_query_tokens: int
    pad_token_id: int
    query_prompt: str = ""
    document_prompt: str = ""
    expansion: Expansion | None = None
    skipped_token_ids: tuple[int, ...] = ()
    similarity: str = ""
    samples: tuple[Sample, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Give the facts as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EncoderFacts:
        """Read what `as_json` gave."""
        expansion = values["expansion"]
        given = {
            "kind": EncoderKind(values["kind"]),
            "expansion": None if expansion is None else Expansion(**expansion),
            "skipped_token_ids": tuple(values["skipped_token_ids"]),
            "samples": tuple(
                Sample(each["text"], tuple(each["query_ids"]), tuple(each["document_ids"]))
                for each in values["samples"]
            ),
        }
        return cls(**{**values, **given})


def encoder_kind(folder: Path) -> EncoderKind | None:
    """Tell which kind of encoder a folder holds, None if its files do not say that it is one.

    Known are sentence-transformers' folders, PyLate's and those of Stanford's ColBERT. Never
    raises.
    """
    try:
        return _kind(folder)
    except StartupError:
        return None


def _kind(folder: Path) -> EncoderKind | None:
    if STANFORD_ARCHITECTURE in architectures(folder):
        return EncoderKind.MULTI_VECTOR
    if not (folder / "modules.json").is_file():
        return None
    whole = read_json_object(folder / "config_sentence_transformers.json")
    model_type = whole.text("model_type")
    modules = list(_module_types(folder / "modules.json"))
    is_pylate = any(each.startswith("pylate.") for each in modules)
    if model_type in _MULTI_VECTOR_TYPES or is_pylate or _PYLATE_KEYS & whole.values.keys():
        return EncoderKind.MULTI_VECTOR
    is_pooled = any(each.rpartition(".")[2] == "Pooling" for each in modules)
    is_sentence_encoder = model_type in {None, "SentenceTransformer"}
    return EncoderKind.BI_ENCODER if is_pooled and is_sentence_encoder else None


def _module_types(path: Path) -> Iterator[str]:
    modules = parse_json_file(path)
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        raise ModelNotServable(f"{path} must hold a JSON list of objects")
    for place, module in enumerate(modules):
        yield JsonObject(path, module, f"[{place}].").text("type") or ""
