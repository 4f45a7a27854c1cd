"""Families of rerankers: what a score means."""
