from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LongDocumentPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LONG_DOCUMENT_POLICY_UNSPECIFIED: _ClassVar[LongDocumentPolicy]
    LONG_DOCUMENT_POLICY_CHUNK: _ClassVar[LongDocumentPolicy]
    LONG_DOCUMENT_POLICY_TRUNCATE: _ClassVar[LongDocumentPolicy]
    LONG_DOCUMENT_POLICY_REJECT: _ClassVar[LongDocumentPolicy]

class TruncationSide(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRUNCATION_SIDE_UNSPECIFIED: _ClassVar[TruncationSide]
    TRUNCATION_SIDE_RIGHT: _ClassVar[TruncationSide]
    TRUNCATION_SIDE_LEFT: _ClassVar[TruncationSide]

class Normalization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NORMALIZATION_UNSPECIFIED: _ClassVar[Normalization]
    NORMALIZATION_NONE: _ClassVar[Normalization]
    NORMALIZATION_UNIT: _ClassVar[Normalization]
    NORMALIZATION_LOGIT: _ClassVar[Normalization]

class ScoreKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCORE_KIND_UNSPECIFIED: _ClassVar[ScoreKind]
    SCORE_KIND_RAW_LOGIT: _ClassVar[ScoreKind]
    SCORE_KIND_PROBABILITY: _ClassVar[ScoreKind]
    SCORE_KIND_MAXSIM: _ClassVar[ScoreKind]
    SCORE_KIND_COSINE: _ClassVar[ScoreKind]
    SCORE_KIND_LEXICAL: _ClassVar[ScoreKind]
    SCORE_KIND_RANK: _ClassVar[ScoreKind]
LONG_DOCUMENT_POLICY_UNSPECIFIED: LongDocumentPolicy
LONG_DOCUMENT_POLICY_CHUNK: LongDocumentPolicy
LONG_DOCUMENT_POLICY_TRUNCATE: LongDocumentPolicy
LONG_DOCUMENT_POLICY_REJECT: LongDocumentPolicy
TRUNCATION_SIDE_UNSPECIFIED: TruncationSide
TRUNCATION_SIDE_RIGHT: TruncationSide
TRUNCATION_SIDE_LEFT: TruncationSide
NORMALIZATION_UNSPECIFIED: Normalization
NORMALIZATION_NONE: Normalization
NORMALIZATION_UNIT: Normalization
NORMALIZATION_LOGIT: Normalization
SCORE_KIND_UNSPECIFIED: ScoreKind
SCORE_KIND_RAW_LOGIT: ScoreKind
SCORE_KIND_PROBABILITY: ScoreKind
SCORE_KIND_MAXSIM: ScoreKind
SCORE_KIND_COSINE: ScoreKind
SCORE_KIND_LEXICAL: ScoreKind
SCORE_KIND_RANK: ScoreKind

class Vectors(_message.Message):
    __slots__ = ("dimension", "values")
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    dimension: int
    values: bytes
    def __init__(self, dimension: _Optional[int] = ..., values: _Optional[bytes] = ...) -> None: ...

class Document(_message.Message):
    __slots__ = ("text", "id", "vectors")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    text: str
    id: str
    vectors: Vectors
    def __init__(self, text: _Optional[str] = ..., id: _Optional[str] = ..., vectors: _Optional[_Union[Vectors, _Mapping]] = ...) -> None: ...

class Truncation(_message.Message):
    __slots__ = ("max_tokens_per_document", "side")
    MAX_TOKENS_PER_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    max_tokens_per_document: int
    side: TruncationSide
    def __init__(self, max_tokens_per_document: _Optional[int] = ..., side: _Optional[_Union[TruncationSide, str]] = ...) -> None: ...

class RerankOptions(_message.Message):
    __slots__ = ("model", "top_n", "return_documents", "score_threshold", "truncation", "long_document_policy", "priority", "normalization")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOP_N_FIELD_NUMBER: _ClassVar[int]
    RETURN_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    SCORE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    LONG_DOCUMENT_POLICY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    model: str
    top_n: int
    return_documents: bool
    score_threshold: float
    truncation: Truncation
    long_document_policy: LongDocumentPolicy
    priority: int
    normalization: Normalization
    def __init__(self, model: _Optional[str] = ..., top_n: _Optional[int] = ..., return_documents: bool = ..., score_threshold: _Optional[float] = ..., truncation: _Optional[_Union[Truncation, _Mapping]] = ..., long_document_policy: _Optional[_Union[LongDocumentPolicy, str]] = ..., priority: _Optional[int] = ..., normalization: _Optional[_Union[Normalization, str]] = ...) -> None: ...

class RerankRequest(_message.Message):
    __slots__ = ("query", "documents", "options", "query_vectors")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    QUERY_VECTORS_FIELD_NUMBER: _ClassVar[int]
    query: str
    documents: _containers.RepeatedCompositeFieldContainer[Document]
    options: RerankOptions
    query_vectors: Vectors
    def __init__(self, query: _Optional[str] = ..., documents: _Optional[_Iterable[_Union[Document, _Mapping]]] = ..., options: _Optional[_Union[RerankOptions, _Mapping]] = ..., query_vectors: _Optional[_Union[Vectors, _Mapping]] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("start", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("value", "best_window", "truncated", "window_count")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    BEST_WINDOW_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_COUNT_FIELD_NUMBER: _ClassVar[int]
    value: float
    best_window: Window
    truncated: bool
    window_count: int
    def __init__(self, value: _Optional[float] = ..., best_window: _Optional[_Union[Window, _Mapping]] = ..., truncated: bool = ..., window_count: _Optional[int] = ...) -> None: ...

class DocumentError(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class RerankResult(_message.Message):
    __slots__ = ("index", "id", "document", "score", "error")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    index: int
    id: str
    document: Document
    score: Score
    error: DocumentError
    def __init__(self, index: _Optional[int] = ..., id: _Optional[str] = ..., document: _Optional[_Union[Document, _Mapping]] = ..., score: _Optional[_Union[Score, _Mapping]] = ..., error: _Optional[_Union[DocumentError, _Mapping]] = ...) -> None: ...

class ModelReference(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("tokens", "pairs", "cache_hits", "remote_calls")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    REMOTE_CALLS_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    pairs: int
    cache_hits: int
    remote_calls: int
    def __init__(self, tokens: _Optional[int] = ..., pairs: _Optional[int] = ..., cache_hits: _Optional[int] = ..., remote_calls: _Optional[int] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("queue_us", "tokenise_us", "infer_us", "total_us")
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    TOKENISE_US_FIELD_NUMBER: _ClassVar[int]
    INFER_US_FIELD_NUMBER: _ClassVar[int]
    TOTAL_US_FIELD_NUMBER: _ClassVar[int]
    queue_us: int
    tokenise_us: int
    infer_us: int
    total_us: int
    def __init__(self, queue_us: _Optional[int] = ..., tokenise_us: _Optional[int] = ..., infer_us: _Optional[int] = ..., total_us: _Optional[int] = ...) -> None: ...

class RerankSummary(_message.Message):
    __slots__ = ("model", "score_kind", "normalization", "query_truncated", "usage", "timing", "fallback_for")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_KIND_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    QUERY_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FOR_FIELD_NUMBER: _ClassVar[int]
    model: ModelReference
    score_kind: ScoreKind
    normalization: Normalization
    query_truncated: bool
    usage: Usage
    timing: Timing
    fallback_for: str
    def __init__(self, model: _Optional[_Union[ModelReference, _Mapping]] = ..., score_kind: _Optional[_Union[ScoreKind, str]] = ..., normalization: _Optional[_Union[Normalization, str]] = ..., query_truncated: bool = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., fallback_for: _Optional[str] = ...) -> None: ...

class RerankResponse(_message.Message):
    __slots__ = ("results", "summary")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RerankResult]
    summary: RerankSummary
    def __init__(self, results: _Optional[_Iterable[_Union[RerankResult, _Mapping]]] = ..., summary: _Optional[_Union[RerankSummary, _Mapping]] = ...) -> None: ...

class RerankStreamStart(_message.Message):
    __slots__ = ("query", "options", "query_vectors")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    QUERY_VECTORS_FIELD_NUMBER: _ClassVar[int]
    query: str
    options: RerankOptions
    query_vectors: Vectors
    def __init__(self, query: _Optional[str] = ..., options: _Optional[_Union[RerankOptions, _Mapping]] = ..., query_vectors: _Optional[_Union[Vectors, _Mapping]] = ...) -> None: ...

class RerankStreamDocuments(_message.Message):
    __slots__ = ("documents",)
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[Document]
    def __init__(self, documents: _Optional[_Iterable[_Union[Document, _Mapping]]] = ...) -> None: ...

class RerankStreamRequest(_message.Message):
    __slots__ = ("start", "documents")
    START_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    start: RerankStreamStart
    documents: RerankStreamDocuments
    def __init__(self, start: _Optional[_Union[RerankStreamStart, _Mapping]] = ..., documents: _Optional[_Union[RerankStreamDocuments, _Mapping]] = ...) -> None: ...

class RerankStreamSummary(_message.Message):
    __slots__ = ("order", "summary")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    order: _containers.RepeatedScalarFieldContainer[int]
    summary: RerankSummary
    def __init__(self, order: _Optional[_Iterable[int]] = ..., summary: _Optional[_Union[RerankSummary, _Mapping]] = ...) -> None: ...

class RerankStreamResponse(_message.Message):
    __slots__ = ("result", "summary")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    result: RerankResult
    summary: RerankStreamSummary
    def __init__(self, result: _Optional[_Union[RerankResult, _Mapping]] = ..., summary: _Optional[_Union[RerankStreamSummary, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Model(_message.Message):
    __slots__ = ("model", "family", "score_kind", "max_tokens", "comparable_across_requests", "is_default", "default_long_document_policy", "aliases", "is_loaded", "vector_dimension")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    SCORE_KIND_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPARABLE_ACROSS_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_LONG_DOCUMENT_POLICY_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    IS_LOADED_FIELD_NUMBER: _ClassVar[int]
    VECTOR_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    model: ModelReference
    family: str
    score_kind: ScoreKind
    max_tokens: int
    comparable_across_requests: bool
    is_default: bool
    default_long_document_policy: LongDocumentPolicy
    aliases: _containers.RepeatedScalarFieldContainer[str]
    is_loaded: bool
    vector_dimension: int
    def __init__(self, model: _Optional[_Union[ModelReference, _Mapping]] = ..., family: _Optional[str] = ..., score_kind: _Optional[_Union[ScoreKind, str]] = ..., max_tokens: _Optional[int] = ..., comparable_across_requests: bool = ..., is_default: bool = ..., default_long_document_policy: _Optional[_Union[LongDocumentPolicy, str]] = ..., aliases: _Optional[_Iterable[str]] = ..., is_loaded: bool = ..., vector_dimension: _Optional[int] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...
