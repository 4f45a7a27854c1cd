"""Resolving, downloading, converting and quantising models; the embedded one lives here too."""
