"""The messages of `tei.v1`, Hugging Face's text-embeddings-inference."""

from rerank_sidecar.third_party.private_pool import contents_of

globals().update(contents_of("tei.proto"))
