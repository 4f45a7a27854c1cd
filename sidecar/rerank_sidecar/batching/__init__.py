"""Packing the token sequences of all callers into forward passes."""
