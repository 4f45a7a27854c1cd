"""The settings of models: which are served, under which names, and how each of them answers."""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode

from rerank_sidecar.types import LongDocumentPolicy, Normalization

DEFAULT_NAME = "default"
"""What requests may always call the default model."""

LEXICAL_NAME = "lexical"
"""The reranker that is served beside all others."""


def split_list(given: Any) -> Any:  # noqa: ANN401 - whoever validates it says what it should be
    """Take apart what commas separate, in one text or in each of several."""
    parts = [given] if isinstance(given, str) else given
    if not isinstance(parts, list | tuple):
        return given
    return [item.strip() for part in parts for item in str(part).split(",") if item.strip()]


def read_options(given: Any) -> Any:  # noqa: ANN401 - whoever validates it says what it should be
    """Read `key=value` texts as a table; a value that is JSON is taken as such, else as a text."""
    if isinstance(given, str):
        given = _value(given) if given.lstrip().startswith("{") else split_list(given)
    if not isinstance(given, list | tuple):
        return given
    pairs = [str(each).partition("=") for each in given]
    if not all(key.strip() and equals for key, equals, _ in pairs):
        raise ValueError("must be KEY=VALUE")
    return {key.strip(): _value(value.strip()) for key, _, value in pairs}


def _value(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError:
        return text


FamilyOptions = Annotated[dict[str, Any], BeforeValidator(read_options)]
"""The options of one family, by name; the family itself validates them when it loads."""


class Quantization(StrEnum):
    """How the weights of a model are stored and multiplied on the CPU."""

    INT8 = "int8"
    NONE = "none"


class EngineChoice(StrEnum):
    """Which kernels run the forward passes; see docs/performance.md."""

    AUTO = "auto"
    OPENVINO_INT8 = "openvino-int8"
    OPENVINO_BF16 = "openvino-bf16"
    OPENVINO_FLOAT32 = "openvino-float32"
    ONNXRUNTIME_INT8 = "onnxruntime-int8"
    ONNXRUNTIME_BF16 = "onnxruntime-bf16"
    ONNXRUNTIME_FLOAT32 = "onnxruntime-float32"
    TORCH_FLOAT32 = "torch-float32"
    TORCH_BF16 = "torch-bf16"
    TORCH_FP16 = "torch-fp16"

    @property
    def is_onnxruntime(self) -> bool:
        """Tell whether it is ONNX Runtime's."""
        return self.value.startswith("onnxruntime-")


ANY_DEVICE = "auto"

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
"""What runs a model: the CPU, all GPUs (`cuda`) or one of them (`cuda:1`)."""


class LoadTime(StrEnum):
    """When a model is loaded: before the server is ready, or for the first request that wants it.

    A LAZY model that was unloaded is loaded again by the next request.
    """

    START = "start"
    LAZY = "lazy"


class UnknownModel(StrEnum):
    """What becomes of a request that names a model which nobody here is called."""

    DEFAULT = "default"
    ERROR = "error"


class ModelTable(BaseModel):
    """One `[[models]]` table; a field that is None is as the setting of that name."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(min_length=1, description="What requests call it, and what replies name.")
    source: str = Field(
        min_length=1, description="What to serve: all that the setting `model` takes."
    )
    aliases: Annotated[tuple[str, ...], BeforeValidator(split_list)] = Field(
        (),
        description="Other names that requests may use; `*`, `?` and `[...]` are understood as in "
        "names of files. Of several tables that match, the first answers.",
    )
    default: bool = Field(
        False,
        description="Answers requests that name no model. Without it, the first table does.",
    )
    members: Annotated[tuple[str, ...], BeforeValidator(split_list)] = Field(
        (),
        description="For a combination of models: the names of the others, in its order.",
    )
    load: LoadTime = Field(
        LoadTime.START,
        description="`start`: the server is ready once it is loaded. `lazy`: the first request "
        "that wants it loads it.",
    )
    family: str | None = None
    family_options: FamilyOptions | None = None
    quantize: Quantization | None = None
    engine: EngineChoice | None = None
    device: Device | None = None
    revision: str | None = None
    trust_remote_code: bool | None = None
    long_document_policy: LongDocumentPolicy | None = None
    max_windows: int | None = Field(None, ge=1)
    normalization: Normalization | None = None
    max_documents: int | None = Field(None, ge=1)
    max_document_bytes: int | None = Field(None, ge=1)
    max_query_bytes: int | None = Field(None, ge=1)
    max_request_tokens: int | None = Field(None, ge=1)


class ModelSettings(BaseSettings):
    """All that may change while the server runs: see docs/models.md on several models."""

    model: str = Field(
        "embedded",
        min_length=1,
        description="What to serve: `embedded`, `lexical`, a folder, a Hugging Face model id, or "
        "another server as `engine:address`; see docs/rerankers.md. Beside `[[models]]` tables: "
        "the name of the one that is the default.",
    )
    family: str | None = Field(
        None,
        description="Which family of rerankers runs the model; see docs/rerankers.md. Unset: as "
        "its files tell.",
    )
    family_options: Annotated[FamilyOptions, NoDecode] = Field(
        default_factory=dict,
        description="Options of the family, such as `window=20`; a table in the file. See "
        "docs/rerankers.md.",
    )
    models: Annotated[tuple[ModelTable, ...], NoDecode] = Field(
        (), description="Several models, each a `[[models]]` table; see below."
    )
    unknown_model: UnknownModel | None = Field(
        None,
        description="What answers a request that names a model which is not served: the `default` "
        "model, or an `error`. Unset: `default` if one model is served, else `error`.",
    )
    quantize: Quantization = Field(
        Quantization.INT8,
        description="`int8` (smaller, and faster on a CPU) or `none` (exact) for a model that is "
        "converted here. The embedded model is int8 already.",
    )
    engine: EngineChoice = Field(
        EngineChoice.AUTO,
        description="Which kernels run the model. `auto` times those that keep what `quantize` "
        "promises on this CPU and takes the fastest; on a GPU it takes torch.",
    )
    device: Device = Field(
        ANY_DEVICE,
        description="What runs the model: `cpu`, `cuda` (all GPUs), `cuda:1` (one of them), or "
        "`auto`: GPUs if there are any and torch is installed. The embedded model runs on the CPU.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with a hub model. Only for models you trust."
    )
    long_document_policy: LongDocumentPolicy | None = Field(
        None,
        description="What happens to long documents when the request does not say: `chunk`, "
        "`truncate` or `reject`. Unset: the model's own default.",
    )
    max_windows: int = Field(
        16, ge=1, description="Windows of one document that are scored under `chunk`."
    )
    normalization: Normalization = Field(
        Normalization.NONE,
        description="The scale of scores when neither the request nor its dialect says: the "
        "model's own (`none`), [0, 1] (`unit`), or probabilities as logits (`logit`).",
    )
    max_documents: int = Field(10_000, ge=1, description="Documents that one request may carry.")
    max_document_bytes: int = Field(
        1_048_576,
        ge=1,
        description="UTF-8 bytes of one document; a longer one fails alone.",
    )
    max_query_bytes: int = Field(65_536, ge=1, description="UTF-8 bytes of a query.")
    max_request_tokens: int = Field(
        5_120_000,
        ge=1,
        description="Tokens that the model would read for one request, as estimated: its query as "
        "often as it is read, and its documents but for those that caches know. By default as "
        "many as 10,000 documents that each fill a window of 512.",
    )

    @field_validator("models", mode="before")
    @classmethod
    def _only_in_a_file(cls, given: Any) -> Any:  # noqa: ANN401
        if isinstance(given, str):
            raise ValueError("is set by [[models]] tables of the settings file only")
        return given

    @model_validator(mode="after")
    def _tables_fit_together(self) -> ModelSettings:
        names = [table.name for table in self.models]
        if not names:
            return self
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"models: more than one is called {twice[0]!r}")
        if DEFAULT_NAME in names:
            raise ValueError(
                f"models: none may be called {DEFAULT_NAME!r}, which names whichever is"
            )
        if any(each.name == LEXICAL_NAME and each.source != LEXICAL_NAME for each in self.models):
            raise ValueError(f"models: {LEXICAL_NAME!r} is the name of the built-in one")
        if sum(table.default for table in self.models) > 1:
            raise ValueError("models: more than one has default = true")
        self._members_come_first({table.name: table.members for table in self.models})
        if "model" in self.model_fields_set and self.model not in names:
            raise ValueError(
                f"model: beside [[models]] tables it names the default one of them, and none is "
                f"called {self.model!r}; there are {', '.join(names)}"
            )
        return self

    def _members_come_first(self, members: dict[str, tuple[str, ...]]) -> None:
        known = {*members, LEXICAL_NAME}
        for name, of in members.items():
            unknown = next((each for each in of if each not in known), None)
            if unknown is not None:
                raise ValueError(f"models: {name!r} has the member {unknown!r}, which is no table")
        try:
            tuple(TopologicalSorter(members).static_order())
        except CycleError as error:
            raise ValueError(f"models: {error.args[1][0]!r} is a member of itself") from error

    @property
    def default_table(self) -> ModelTable | None:
        """Give the table that answers requests without a model's name; None without tables."""
        if "model" in self.model_fields_set:
            chosen = [table for table in self.models if table.name == self.model]
        else:
            chosen = [table for table in self.models if table.default]
        return next(iter((*chosen, *self.models)), None)


OF_A_TABLE = ModelTable.model_fields.keys() & ModelSettings.model_fields.keys()
"""The settings that a table may have a value of its own for."""
