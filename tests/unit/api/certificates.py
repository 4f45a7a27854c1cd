"""Certificates made for a test, and the files that a server reads them from."""

import datetime
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import trustme

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
SINCE_THEN_OVER = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class PemFiles:
    """Files for `tls_certificate`, `tls_key` and `tls_client_ca` in a folder."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def client_ca(self) -> Path:
        return self.folder / "clients.pem"

    def write(self, issued: trustme.LeafCert) -> None:
        self.write_certificate(issued)
        self.write_key(issued)

    def write_certificate(self, issued: trustme.LeafCert) -> None:
        self.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))

    def write_key(self, issued: trustme.LeafCert) -> None:
        self.key.write_bytes(issued.private_key_pem.bytes())

    def write_client_ca(self, authority: trustme.CA) -> None:
        self.client_ca.write_bytes(authority.cert_pem.bytes())

    def settings(self, *, mutual: bool = False) -> dict[str, Any]:
        files = {"tls_certificate": self.certificate, "tls_key": self.key}
        return {**files, "tls_client_ca": self.client_ca} if mutual else {**files}


def server_certificate(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("localhost", "127.0.0.1")


def expired_certificate(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert(
        "localhost", "127.0.0.1", not_before=LONG_AGO, not_after=SINCE_THEN_OVER
    )


def trusting(authority: trustme.CA, shown: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """What an HTTP client trusts, and the certificate that it shows."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if shown is not None:
        shown.configure_cert(context)
    return context


def grpc_trusting(
    authority: trustme.CA, shown: trustme.LeafCert | None = None
) -> grpc.ChannelCredentials:
    """The same for a gRPC client."""
    if shown is None:
        return grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    chain = _joined(shown.cert_chain_pems)
    return grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), shown.private_key_pem.bytes(), chain
    )


def _joined(pems: Sequence[trustme.Blob]) -> bytes:
    return b"".join(pem.bytes() for pem in pems)
