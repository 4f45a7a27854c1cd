"""Messages of other people's gRPC services, made from our descriptions in proto/third_party.

They live in a descriptor pool of their own: `tritonclient` registers `inference.ModelInferRequest`
and its kin in the default one, and a name can be registered there once in a process.
"""
