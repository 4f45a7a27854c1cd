"""The command line: parses, calls the rooms below, prints. Nothing is decided here."""
