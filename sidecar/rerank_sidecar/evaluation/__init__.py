"""Measuring what reranking gains on a judged collection, and what it costs."""
