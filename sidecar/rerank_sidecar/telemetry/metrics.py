"""Every metric of the server, named in one place; no text and no identifiers in labels.

docs/metrics.md describes them all for those who read them.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from rerank_sidecar.types import Timing

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
FORWARD_TOKENS = Counter(
    "rerank_sidecar_forward_tokens", "Tokens of forward passes, without padding."
)
PADDED_TOKENS = Counter(
    "rerank_sidecar_padded_tokens",
    "Tokens of forward passes when padded to their longest sequence.",
)
PENDING_SEQUENCES = Gauge(
    "rerank_sidecar_pending_sequences", "Sequences that wait for a forward pass.", ["model"]
)
PENDING_TOKENS = Gauge(
    "rerank_sidecar_pending_tokens",
    "Tokens of the sequences that wait for a forward pass.",
    ["model"],
)
REFUSALS = Counter(
    "rerank_sidecar_refusals", "Requests refused by admission, by reason.", ["reason"]
)
CACHE_LOOKUPS = Counter(
    "rerank_sidecar_cache_lookups", "Documents looked up, by cache and result.", ["cache", "result"]
)
CACHE_BYTES = Gauge("rerank_sidecar_cache_bytes", "Bytes that a cache holds.", ["cache"])
STAGE_SECONDS = Histogram(
    "rerank_sidecar_stage_seconds",
    "Where the time of a request went, by stage and model.",
    ["stage", "model"],
    buckets=_LATENCY_BUCKETS_S,
)
ADMITTED_WORK_SECONDS = Gauge(
    "rerank_sidecar_admitted_work_seconds",
    "How long the requests that are being answered keep the models busy, as estimated.",
)
TOKENS_PER_SECOND = Gauge(
    "rerank_sidecar_tokens_per_second",
    "How fast the model reads when it is busy, as measured.",
    ["model"],
)
REMOTE_CALLS = Counter(
    "rerank_sidecar_remote_calls",
    "Calls to other servers, repeated ones included, by model and outcome.",
    ["model", "outcome"],
)
REMOTE_CALL_SECONDS = Histogram(
    "rerank_sidecar_remote_call_seconds",
    "Time of one call to another server.",
    ["model"],
    buckets=_LATENCY_BUCKETS_S,
)
EVENT_LOOP_LAG_SECONDS = Histogram(
    "rerank_sidecar_event_loop_lag_seconds",
    "How late the event loop woke a task that slept, ten times a second.",
    buckets=_LATENCY_BUCKETS_S,
)
LISTWISE_WINDOWS = Counter(
    "rerank_sidecar_listwise_windows",
    "Windows of documents that a chat model was to put in order, by result.",
    ["model", "result"],
)
FALLBACKS = Counter(
    "rerank_sidecar_fallbacks",
    "Times that a member of a fallback was passed over for the next, by member and reason.",
    ["model", "member", "reason"],
)
SHADOW_REQUESTS = Counter(
    "rerank_sidecar_shadow_requests",
    "Requests chosen for the shadow, by result.",
    ["model", "result"],
)
SHADOW_AGREEMENT = Histogram(
    "rerank_sidecar_shadow_agreement",
    "How alike model and shadow order the documents of a request, by measure.",
    ["model", "measure"],
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1),
)


_watched: dict[str, object] = {}


def watch_model(
    model: str,
    tokens_per_s: Callable[[], float],
    pending_sequences: Callable[[], float],
    pending_tokens: Callable[[], float],
) -> Callable[[], None]:
    """Let the gauges of a model read these until the function that is returned is called.

    When a model is replaced, the new one takes the gauges over before the old one lets go.
    """
    gauges = {
        TOKENS_PER_SECOND: tokens_per_s,
        PENDING_SEQUENCES: pending_sequences,
        PENDING_TOKENS: pending_tokens,
    }
    for gauge, read in gauges.items():
        gauge.labels(model=model).set_function(read)
    watcher = _watched[model] = object()

    def stop() -> None:
        if _watched.get(model) is watcher:
            del _watched[model]
            for gauge in gauges:
                gauge.remove(model)

    return stop


def count_stages(model: str, timing: Timing) -> None:
    """Count where the time of one request went, once it has been answered."""
    for stage, spent_us in (
        ("queue", timing.queue_us),
        ("tokenise", timing.tokenise_us),
        ("infer", timing.infer_us),
        ("total", timing.total_us),
    ):
        STAGE_SECONDS.labels(stage=stage, model=model).observe(spent_us / 1_000_000)
