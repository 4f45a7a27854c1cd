"""From what `--model` says to a reranker that is ready: one file for each family."""
