"""The doors: HTTP and gRPC, which translate between callers and the engine and do nothing else."""
