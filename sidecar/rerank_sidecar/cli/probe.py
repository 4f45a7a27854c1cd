"""`rerank-sidecar probe`."""

from __future__ import annotations

import http.client
import ssl
import sys
from ipaddress import ip_address
from typing import Annotated

import typer

from rerank_sidecar.cli.options import takes_settings
from rerank_sidecar.errors import NotReady
from rerank_sidecar.settings import Settings

_PATH = "/.well-known/ready"


@takes_settings("Doors", "Security")
def probe(
    settings: Settings,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How long the answer may take.")
    ] = 3.0,
) -> None:
    """Ask the server of these settings on this machine whether it is ready; exit with 0 if so.

    For the health check of a container: it reads the same flags, environment and file as `serve`,
    so it finds the port, and whether TLS is spoken, by itself. Its own server's certificate is not
    verified, and is shown as the client's where client certificates are asked for.
    """
    connection = _connection(settings, timeout)
    try:
        connection.request("GET", _PATH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"nothing answers on port {settings.http_port}: {error}") from error
    finally:
        connection.close()
    if status // 100 != 2:
        raise NotReady(f"the server is not ready: {_PATH} answers {status}")
    sys.stdout.write("ready\n")


def _connection(settings: Settings, timeout_s: float) -> http.client.HTTPConnection:
    host, port = _reachable(settings.host), settings.http_port
    if settings.tls_certificate is None:
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.tls_client_ca is not None:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


def _reachable(host: str) -> str:
    """Give the address at which a server that listens on `host` is found from here."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"
