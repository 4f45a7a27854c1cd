"""Every metric of the server, named in one place; no text and no identifiers in labels."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)

REQUESTS = Counter(
    "rerank_sidecar_requests", "Requests answered, by door and outcome.", ["door", "outcome"]
)
REQUEST_SECONDS = Histogram(
    "rerank_sidecar_request_seconds",
    "Time from the arrival of a request in the engine to its last score.",
    ["model"],
    buckets=_LATENCY_BUCKETS_S,
)
DOCUMENTS = Counter("rerank_sidecar_documents", "Documents scored.", ["model"])
DOCUMENTS_FAILED = Counter(
    "rerank_sidecar_documents_failed", "Documents that failed alone, by reason.", ["reason"]
)
TOKENS = Counter("rerank_sidecar_tokens", "Tokens read by the model, without padding.", ["model"])
BATCH_SIZE = Histogram(
    "rerank_sidecar_batch_size", "Sequences of a forward pass.", buckets=_SIZE_BUCKETS
)
BATCH_SECONDS = Histogram(
    "rerank_sidecar_batch_seconds", "Time of a forward pass.", buckets=_LATENCY_BUCKETS_S
)
PADDED_TOKENS = Counter(
    "rerank_sidecar_padded_tokens",
    "Tokens of forward passes when padded to their longest sequence.",
)
PENDING_SEQUENCES = Gauge(
    "rerank_sidecar_pending_sequences", "Sequences that wait for a forward pass."
)
