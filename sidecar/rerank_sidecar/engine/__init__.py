"""What to run, when and for whom: the only thing that the doors call."""
