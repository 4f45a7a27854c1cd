"""TLS on real sockets, over both doors: who is let in, and files that change under a server."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from rerank_adapters import AsyncRerankClient, RerankCallError, RerankClient
from rerank_sidecar.api.grpc_server import GrpcServer
from rerank_sidecar.api.http_server import HttpServer
from rerank_sidecar.api.listeners import make_listeners
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.settings import read_settings
from tests.unit.api.certificates import (
    PemFiles,
    expired_certificate,
    grpc_trusting,
    server_certificate,
    trusting,
)
from tests.unit.api.test_http_server import Connection
from tests.unit.api.toy_engine import Toy, engine_with


@dataclass(frozen=True)
class Ports:
    """Where a server listens with both of its doors."""

    http: int
    grpc: int


@asynccontextmanager
async def serving(**settings: object) -> AsyncIterator[Ports]:
    engine = engine_with(Toy(), http_port=0, grpc_port=0, **settings)
    listeners = make_listeners(engine.settings)
    http = HttpServer(engine, engine.settings, listeners.http)
    grpc_server = GrpcServer(engine, engine.settings, listeners.grpc)
    try:
        yield Ports(await http.start(), await grpc_server.start())
    finally:
        await http.stop(0)
        await grpc_server.stop(0)


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncIterator[Connection]:
    connection = Connection(
        *await asyncio.open_connection("localhost", port, ssl=context, family=2)
    )
    try:
        yield connection
    finally:
        connection.writer.transport.abort()


async def ask_http(port: int, context: ssl.SSLContext) -> int:
    async with connected(port, context) as connection:
        status, _ = await connection.ask("1")
        return status


async def ask_grpc(port: int, credentials: grpc.ChannelCredentials) -> int:
    async with AsyncRerankClient(f"localhost:{port}", tls=credentials) as client:
        return len((await client.rerank("q", ["1"])).results)


async def is_refused_over_http(port: int, context: ssl.SSLContext) -> bool:
    """With TLS 1.3 a client hears only after its handshake that its certificate is not taken."""
    try:
        await ask_http(port, context)
    except (OSError, asyncio.IncompleteReadError):
        return True
    return False


async def is_refused_over_grpc(port: int, credentials: grpc.ChannelCredentials) -> bool:
    try:
        await ask_grpc(port, credentials)
    except RerankCallError as error:
        return error.code is grpc.StatusCode.UNAVAILABLE
    return False


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def other_authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> PemFiles:
    files = PemFiles(tmp_path)
    files.write(server_certificate(authority))
    files.write_client_ca(authority)
    return files


async def test_both_doors_speak_tls(files: PemFiles, authority: trustme.CA) -> None:
    async with serving(**files.settings()) as ports:
        assert await ask_http(ports.http, trusting(authority)) == 200
        assert await ask_grpc(ports.grpc, grpc_trusting(authority)) == 1
        with RerankClient(f"localhost:{ports.grpc}", tls=grpc_trusting(authority)) as client:
            assert len((await asyncio.to_thread(client.rerank, "q", ["1", "2"])).results) == 2


async def test_who_does_not_speak_tls_is_not_answered(files: PemFiles) -> None:
    async with serving(**files.settings()) as ports:
        connection = await Connection.to(ports.http)
        await connection.send("GET /.well-known/live HTTP/1.1\nHost: x")
        assert b"HTTP" not in await connection.reader.read()
        await connection.close()
        async with AsyncRerankClient(f"localhost:{ports.grpc}") as client:
            with pytest.raises(RerankCallError):
                await client.models()


async def test_clients_refuse_a_certificate_that_they_cannot_trust(
    files: PemFiles, authority: trustme.CA, other_authority: trustme.CA
) -> None:
    async with serving(**files.settings()) as ports:
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get"):
            await ask_http(ports.http, trusting(other_authority))
        assert await is_refused_over_grpc(ports.grpc, grpc_trusting(other_authority))
        files.write(expired_certificate(authority))
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            await ask_http(ports.http, trusting(authority))
        assert await is_refused_over_grpc(ports.grpc, grpc_trusting(authority))


@pytest.mark.parametrize("shown", ["valid", "none", "foreign", "expired"])
async def test_mutual_tls_takes_valid_certificates_of_its_authority_only(
    files: PemFiles, authority: trustme.CA, other_authority: trustme.CA, shown: str
) -> None:
    certificate = {
        "valid": server_certificate(authority),
        "none": None,
        "foreign": server_certificate(other_authority),
        "expired": expired_certificate(authority),
    }[shown]
    over_http = trusting(authority, certificate)
    over_grpc = grpc_trusting(authority, certificate)
    async with serving(**files.settings(mutual=True)) as ports:
        if shown == "valid":
            assert await ask_http(ports.http, over_http) == 200
            assert await ask_grpc(ports.grpc, over_grpc) == 1
        else:
            assert await is_refused_over_http(ports.http, over_http)
            assert await is_refused_over_grpc(ports.grpc, over_grpc)


async def test_a_new_certificate_counts_for_new_connections_and_drops_none(
    files: PemFiles, authority: trustme.CA, other_authority: trustme.CA
) -> None:
    async with (
        serving(**files.settings()) as ports,
        connected(ports.http, trusting(authority)) as http,
        AsyncRerankClient(f"localhost:{ports.grpc}", tls=grpc_trusting(authority)) as client,
    ):
        assert (await http.ask("1"))[0] == 200
        assert await client.models()
        files.write(server_certificate(other_authority))
        for _ in range(2):  # also where there is nothing newer
            assert await ask_http(ports.http, trusting(other_authority)) == 200
            assert await ask_grpc(ports.grpc, grpc_trusting(other_authority)) == 1
        assert await is_refused_over_http(ports.http, trusting(authority))
        assert await is_refused_over_grpc(ports.grpc, grpc_trusting(authority))
        assert (await http.ask("1"))[0] == 200
        assert await client.models()


async def test_a_new_authority_of_clients_counts_for_new_connections(
    files: PemFiles, authority: trustme.CA, other_authority: trustme.CA
) -> None:
    old = server_certificate(authority)
    new = server_certificate(other_authority)
    async with serving(**files.settings(mutual=True)) as ports:
        assert await ask_http(ports.http, trusting(authority, old)) == 200
        assert await ask_grpc(ports.grpc, grpc_trusting(authority, old)) == 1
        files.write_client_ca(other_authority)
        assert await is_refused_over_http(ports.http, trusting(authority, old))
        assert await is_refused_over_grpc(ports.grpc, grpc_trusting(authority, old))
        assert await ask_http(ports.http, trusting(authority, new)) == 200
        assert await ask_grpc(ports.grpc, grpc_trusting(authority, new)) == 1


async def test_the_old_pair_stays_while_the_new_one_is_written(
    files: PemFiles,
    authority: trustme.CA,
    other_authority: trustme.CA,
    caplog: pytest.LogCaptureFixture,
) -> None:
    issued = server_certificate(other_authority)
    async with serving(**files.settings()) as ports:
        states: list[Callable[[], object]] = [
            lambda: files.write_certificate(issued),
            lambda: files.certificate.write_bytes(files.certificate.read_bytes()[:300]),
            files.certificate.unlink,
        ]
        for number, half_write in enumerate(states, start=1):
            half_write()
            for _ in range(2):
                assert await ask_http(ports.http, trusting(authority)) == 200
                assert await ask_grpc(ports.grpc, grpc_trusting(authority)) == 1
            assert caplog.text.count("what was read before stays in use") == number
        assert str(files.key) in caplog.text
        files.write(issued)
        assert await ask_http(ports.http, trusting(other_authority)) == 200
        assert await ask_grpc(ports.grpc, grpc_trusting(other_authority)) == 1


async def test_files_replaced_behind_a_link_are_seen(
    tmp_path: Path, authority: trustme.CA, other_authority: trustme.CA
) -> None:
    """Kubernetes mounts a secret as a link to a folder, and replaces the link."""
    for name, issuer in (("first", authority), ("second", other_authority)):
        (tmp_path / name).mkdir()
        PemFiles(tmp_path / name).write(server_certificate(issuer))
    current, newer = tmp_path / "current", tmp_path / "newer"
    current.symlink_to("first")
    async with serving(**PemFiles(current).settings()) as ports:
        assert await ask_http(ports.http, trusting(authority)) == 200
        newer.symlink_to("second")
        newer.replace(current)
        assert await ask_http(ports.http, trusting(other_authority)) == 200


async def test_a_handshake_that_does_not_end_holds_up_nobody(
    files: PemFiles, authority: trustme.CA
) -> None:
    async with serving(**files.settings()) as ports:
        silent = [await Connection.to(ports.http) for _ in range(20)]
        assert await ask_http(ports.http, trusting(authority)) == 200
        for connection in silent:
            connection.writer.transport.abort()


async def test_stop_closes_idle_connections(files: PemFiles, authority: trustme.CA) -> None:
    engine = engine_with(Toy(), http_port=0, **files.settings())
    server = HttpServer(engine, engine.settings)
    async with connected(await server.start(), trusting(authority)) as connection:
        assert (await connection.ask("1"))[0] == 200
        await server.stop(10)
        assert await connection.reader.read() == b""


@pytest.mark.parametrize("given", [["tls_certificate"], ["tls_key"], ["tls_client_ca"]])
def test_half_of_a_pair_is_a_wrong_setting(files: PemFiles, given: list[str]) -> None:
    settings = read_settings(None, **{name: files.settings(mutual=True)[name] for name in given})
    missing = {"tls_certificate", "tls_key"} - set(given)
    with pytest.raises(InvalidSetting) as caught:
        make_listeners(settings)
    complaint, _, reason = caught.value.message.partition(": ")
    assert set(complaint.split(" and ")) == missing
    assert reason == f"needed with {given[0]}"


@pytest.mark.parametrize("name", ["tls_certificate", "tls_key", "tls_client_ca"])
@pytest.mark.parametrize("state", ["missing", "a folder", "not PEM"])
def test_a_file_that_cannot_be_used_is_a_wrong_setting(
    files: PemFiles, name: str, state: str
) -> None:
    path = files.settings(mutual=True)[name]
    assert isinstance(path, Path)
    path.unlink()
    if state == "a folder":
        path.mkdir()
    if state == "not PEM":
        path.write_text("hello")
    with pytest.raises(InvalidSetting, match=rf"{name}.*{path}"):
        make_listeners(read_settings(None, **files.settings(mutual=True)))


def test_a_key_of_another_certificate_is_a_wrong_setting(
    files: PemFiles, authority: trustme.CA
) -> None:
    files.write_key(server_certificate(authority))
    with pytest.raises(InvalidSetting, match=r"tls_key: .* is not the key of tls_certificate"):
        make_listeners(read_settings(None, **files.settings()))


def test_an_encrypted_key_is_a_wrong_setting(files: PemFiles) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    files.key.write_bytes(encrypted)
    with pytest.raises(InvalidSetting, match="not a certificate and its key, unencrypted"):
        make_listeners(read_settings(None, **files.settings()))
