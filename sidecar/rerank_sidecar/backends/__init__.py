"""Runtimes: each runs a batch of token sequences and gives an array for each."""
