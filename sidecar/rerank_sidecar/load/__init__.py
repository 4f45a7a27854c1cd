"""A load generator: what is sent and when, what came back, and what that amounts to."""
