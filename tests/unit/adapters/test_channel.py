"""Where a gRPC client goes: one target or several addresses, and the name on the certificate."""

import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from rerank_adapters import AsyncRerankClient, HttpRerankClient, RerankClient, Unreachable
from rerank_adapters.transport.base import BlockingClient
from rerank_adapters.transport.channel import Reach, Target
from tests.unit.adapters.every_client import in_thread, listening
from tests.unit.api.certificates import PemFiles


def reach(target: Target, **options: Any) -> Reach:
    defaults: dict[str, Any] = {
        "token": None,
        "tls": None,
        "server_name": None,
        "max_attempts": 4,
        "channel_options": (),
    }
    return Reach.of(target, **{**defaults, **options})


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ("rerank:50051", "rerank:50051"),
        ("dns:///rerank:50051", "dns:///rerank:50051"),
        (["dns:///rerank:50051"], "dns:///rerank:50051"),
        (["10.0.0.1:1", "10.0.0.2:2"], "ipv4:10.0.0.1:1,10.0.0.2:2"),
        (("localhost:1", "localhost:2"), "ipv4:127.0.0.1:1,127.0.0.1:2"),
        (["[::1]:1", "[2001:db8::1]:2"], "ipv6:[::1]:1,[2001:db8::1]:2"),
        (["10.0.0.1:1", "[::1]:2"], "ipv6:[::ffff:10.0.0.1]:1,[::1]:2"),
    ],
    ids=str,
)
def test_addresses_become_one_target(given: Target, target: str) -> None:
    assert reach(given).target == target


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "at least one"),
        (["10.0.0.1", "10.0.0.2:1"], "is not address:port"),
        (["::1:50051", "10.0.0.2:1"], "is not address:port"),
        (["rerank-1:50051", "rerank-2:50051"], "'rerank-1' in a list is a name"),
        ("http://localhost:8080", "HttpRerankClient"),
        (["http://localhost:8080"], "HttpRerankClient"),
        ("https://localhost:8080", "HttpRerankClient"),
    ],
    ids=str,
)
@pytest.mark.parametrize("client", [RerankClient, AsyncRerankClient])
def test_addresses_that_cannot_be_used_are_explained(
    client: type[RerankClient] | type[AsyncRerankClient], given: Target, reason: str
) -> None:
    with pytest.raises(ValueError, match=f"^target: .*{reason}"):
        client(given)


def test_options_of_the_channel_go_before_ours() -> None:
    plain = dict(reach("a:1").options)
    chosen = dict(reach("a:1", channel_options=[("grpc.keepalive_time_ms", 1)]).options)
    assert plain["grpc.keepalive_time_ms"] == 30_000
    assert chosen == {**plain, "grpc.keepalive_time_ms": 1}


def test_one_attempt_means_no_retry_policy() -> None:
    config = json.loads(str(dict(reach("a:1", max_attempts=1).options)["grpc.service_config"]))
    assert config == {"loadBalancingConfig": [{"round_robin": {}}]}


@dataclass
class Encrypted:
    """Two sidecars whose certificate is for `rerank.example` and 127.0.0.1, and who to trust."""

    targets: list[str]
    urls: list[str]
    trusted: grpc.ChannelCredentials
    context: ssl.SSLContext


@pytest.fixture
async def encrypted(tmp_path: Path) -> AsyncIterator[Encrypted]:
    authority, files = trustme.CA(), PemFiles(tmp_path)
    files.write(authority.issue_cert("rerank.example", "127.0.0.1"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with listening(**files.settings()) as first, listening(**files.settings()) as second:
        addresses = [each.target.replace("localhost", "127.0.0.1") for each in (first, second)]
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        yield Encrypted(addresses, [first.url, second.url], trusted, context)


async def answer(client: BlockingClient) -> int:
    with client:
        return len((await in_thread(client.rerank, "q", ["a"])).results)


async def test_addresses_are_held_to_the_name_on_the_certificate(encrypted: Encrypted) -> None:
    for name in (None, "127.0.0.1", "rerank.example"):
        named = RerankClient(encrypted.targets, tls=encrypted.trusted, server_name=name)
        assert await answer(named) == 1
    wrong = RerankClient(
        encrypted.targets, tls=encrypted.trusted, server_name="other.example", max_attempts=1
    )
    with pytest.raises(Unreachable):
        await answer(wrong)


async def test_a_single_target_may_have_another_name(encrypted: Encrypted) -> None:
    target = encrypted.targets[0].replace("127.0.0.1", "localhost")
    assert (
        await answer(RerankClient(target, tls=encrypted.trusted, server_name="rerank.example")) == 1
    )
    with pytest.raises(Unreachable):
        await answer(RerankClient(target, tls=encrypted.trusted, max_attempts=1))


async def test_addresses_that_differ_need_the_name(encrypted: Encrypted) -> None:
    with pytest.raises(ValueError, match=r"^server_name: "):
        RerankClient(["10.0.0.1:1", "10.0.0.2:1"], tls=encrypted.trusted)
    RerankClient(["10.0.0.1:1", "10.0.0.2:1"])
    differing = [encrypted.targets[0], encrypted.targets[1].replace("127.0.0.1", "localhost")]
    named = RerankClient(differing, tls=encrypted.trusted, server_name="rerank.example")
    assert await answer(named) == 1


async def test_https_is_encrypted_and_its_certificate_checked(encrypted: Encrypted) -> None:
    url = encrypted.urls[0]
    assert await answer(HttpRerankClient(url, tls=encrypted.context)) == 1
    for wrong in (url, url.replace("https", "http")):
        with pytest.raises(Unreachable):
            await answer(HttpRerankClient(wrong, max_attempts=1))
