"""How a host and a port are written together."""

from __future__ import annotations


def authority(host: str, port: int) -> str:
    """Write `host:port`, with brackets around an IPv6 address (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
