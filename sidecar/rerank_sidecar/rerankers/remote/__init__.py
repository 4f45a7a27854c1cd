"""Other servers as rerankers: one file for each wire, and what all calls to them have in common."""
