"""TLS for both doors: a certificate with its key, and whose client certificates are taken."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from rerank_sidecar.api.watched_files import WatchedFiles
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.settings import Settings

_MISMATCH = frozenset({"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""What OpenSSL says of a key with another value or of another kind than the certificate's."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files; `client_ca` makes TLS mutual."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """Give those that are there to be read."""
        return [self.certificate, self.key, *([self.client_ca] if self.client_ca else [])]


@dataclass(frozen=True, slots=True)
class _Material:
    """One state of the files, known to fit together, as each of the two servers wants it."""

    context: ssl.SSLContext
    for_grpc: grpc.ServerCertificateConfiguration = field(repr=False)


class ServerTls:
    """Encrypts the connections of servers; each new one with the files as they are by then.

    Connections that are open keep what they were opened with.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Read the files.

        Raises:
            InvalidSetting: a file is missing, unreadable or of another kind, or the key is not the
                certificate's.
        """
        self._is_mutual = files.client_ca is not None
        self._material = WatchedFiles(files.paths, lambda: _read(files))

    @classmethod
    def of(cls, settings: Settings, *, mutual: bool = True) -> Self | None:
        """Make what the settings ask for, None meaning no TLS; `mutual` false leaves clients be.

        Raises:
            InvalidSetting: a file is not set that belongs to another, or cannot be used.
        """
        certificate, key = settings.tls_certificate, settings.tls_key
        if certificate is None or key is None:
            _refuse_halves(settings)
            return None
        return cls(TlsFiles(certificate, key, settings.tls_client_ca if mutual else None))

    def ssl_context(self) -> ssl.SSLContext:
        """Give the context of an asyncio server."""
        return _NewestContext(ssl.PROTOCOL_TLS_SERVER, lambda: self._material.current().context)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Give the credentials of a gRPC server, which asks for newer ones at each handshake."""
        given = self._material.current()

        def newer() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            newest = self._material.current()
            if newest is given:
                return None
            given = newest
            return newest.for_grpc

        return grpc.dynamic_ssl_server_credentials(
            given.for_grpc,
            newer,  # type: ignore[arg-type]  # None is documented: nothing has changed
            require_client_authentication=self._is_mutual,
        )


class _NewestContext(ssl.SSLContext):
    """Opens each connection with the newest of many contexts: asyncio's servers know only one.

    OpenSSL would take another certificate into a context that is in use, but no other authorities,
    and would lose the old one over a new one that does not fit.
    """

    _newest: Callable[[], ssl.SSLContext]

    def __new__(cls, protocol: int, _newest: Callable[[], ssl.SSLContext]) -> Self:
        return super().__new__(cls, protocol)

    def __init__(self, _protocol: int, newest: Callable[[], ssl.SSLContext]) -> None:
        self._newest = newest

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401
        """Begin a connection; all that asyncio does with a context."""
        return self._newest().wrap_bio(*args, **options)


def _refuse_halves(settings: Settings) -> None:
    given = {
        "tls_certificate": settings.tls_certificate,
        "tls_key": settings.tls_key,
        "tls_client_ca": settings.tls_client_ca,
        "weaviate_tls": settings.weaviate_tls or None,
    }
    set_ones = [name for name, value in given.items() if value is not None]
    if set_ones:
        missing = [name for name in ("tls_certificate", "tls_key") if given[name] is None]
        raise InvalidSetting(f"{' and '.join(missing)}: needed with {' and '.join(set_ones)}")


def _read(files: TlsFiles) -> _Material:
    certificate = _bytes_of("tls_certificate", files.certificate)
    key = _bytes_of("tls_key", files.key)
    ca = None if files.client_ca is None else _bytes_of("tls_client_ca", files.client_ca)
    for_grpc = grpc.ssl_server_certificate_configuration([(key, certificate)], ca)
    return _Material(_context(files), for_grpc)


def _bytes_of(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSetting(f"{setting}: {path} cannot be read: {error.strerror}") from error


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password of ours OpenSSL would ask for one at the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, OSError) as error:
        raise InvalidSetting(_pair_complaint(files, error)) from error
    if files.client_ca is not None:
        _require_client_certificates(context, files.client_ca)
    return context


def _pair_complaint(files: TlsFiles, error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason in _MISMATCH:
        return f"tls_key: {files.key} is not the key of tls_certificate {files.certificate}"
    return (
        f"tls_certificate and tls_key: {files.certificate} and {files.key} are not a certificate "
        "and its key, unencrypted, in PEM form"
    )


def _require_client_certificates(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(authorities)
    except (ssl.SSLError, OSError) as error:
        raise InvalidSetting(
            f"tls_client_ca: {authorities} has no certificates in PEM form"
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED
