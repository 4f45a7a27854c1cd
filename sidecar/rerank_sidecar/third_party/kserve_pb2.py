"""The messages of `inference`, the Open Inference Protocol (KServe v2) with Triton's additions."""

from rerank_sidecar.third_party.private_pool import contents_of

globals().update(contents_of("kserve.proto"))
