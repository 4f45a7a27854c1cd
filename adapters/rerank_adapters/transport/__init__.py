"""How a client reaches its sidecar: calls and their retries, gRPC, HTTP, and what is on the wire.

Private: applications import from `rerank_adapters`.
"""
