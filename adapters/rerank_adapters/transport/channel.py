"""How the gRPC clients reach the server: addresses, balancing, retries, keep-alive, TLS, token."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import grpc

from rerank_adapters.transport.policy import (
    BACKOFF_FACTOR,
    FIRST_BACKOFF_S,
    MOST_BACKOFF_S,
    THROTTLE_RATIO,
    THROTTLE_TOKENS,
)
from rerank_sidecar.v1 import rerank_pb2 as pb

DEFAULT_TARGET = "localhost:50051"

Target = str | Sequence[str]
"""One gRPC target, or several addresses between which calls take turns."""

ChannelOption = tuple[str, str | int]

_SERVICE: str = pb.DESCRIPTOR.services_by_name["RerankService"].full_name

_OPTIONS: tuple[ChannelOption, ...] = (
    # How large a message may be is the server's decision.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC tries again only what it has kept, and by default keeps 256 KiB.
    ("grpc.per_rpc_retry_buffer_size", 67_108_864),
    # The server permits a ping every 10 s, also while nothing is asked.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that is gone is looked for every second; by default that grows to 2 minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # So long may one connection take; by default 20 s, lost if a server is only starting up.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    # What to retry is decided here, not by who answers for the name.
    ("grpc.service_config_disable_resolution", 1),
)

_TRUE = frozenset({"1", "true", "yes"})

_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:/\[\]]+)):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the server is and how to get there; opens channels and says what goes with each call.

    Raises:
        ValueError: an address cannot be used as it stands; the message says why.
    """

    target: str
    tls: grpc.ChannelCredentials | None
    options: tuple[ChannelOption, ...]
    metadata: tuple[tuple[str, str], ...]

    @classmethod
    def of(  # noqa: PLR0913 - as the clients take them
        cls,
        target: Target,
        *,
        token: str | None,
        tls: grpc.ChannelCredentials | None,
        server_name: str | None,
        max_attempts: int,
        channel_options: Sequence[ChannelOption],
    ) -> Reach:
        """Make one of what a client is given."""
        chosen, name = (target, None) if isinstance(target, str) else _one_target(target)
        if chosen.startswith(("http://", "https://")):
            raise ValueError("target: a URL is for HttpRerankClient; gRPC's target is host:port")
        if tls is not None and name == "" and not server_name:
            raise ValueError("server_name: needed with tls where the addresses differ")
        name = server_name or (name if tls is not None else None)
        named = () if name is None else (("grpc.default_authority", name),)
        config = ("grpc.service_config", service_config(max_attempts))
        options = dict((*_OPTIONS, config, *named, *channel_options))  # the last one counts
        return cls(chosen, tls, tuple(options.items()), bearer(token))

    def open(self) -> grpc.Channel:
        """Open a channel that blocks; it connects at its first call."""
        if self.tls is None:
            return grpc.insecure_channel(self.target, self.options)
        return grpc.secure_channel(self.target, self.tls, self.options)

    def open_async(self) -> grpc.aio.Channel:
        """Open a channel for the running event loop; it connects at its first call."""
        if self.tls is None:
            return grpc.aio.insecure_channel(self.target, self.options)
        return grpc.aio.secure_channel(self.target, self.tls, self.options)


def service_config(max_attempts: int) -> str:
    """Write gRPC's own configuration: calls take turns, and what was not begun is tried again.

    RESOURCE_EXHAUSTED is not in it, because gRPC waits as long as an overloaded server says even
    if the deadline is sooner; `Call` looks at both. A server that hardly ever answers is not asked
    again and again (gRFC A6, "Throttling Retry Attempts and Hedged RPCs").
    """
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if max_attempts > 1:
        config["retryThrottling"] = {
            "maxTokens": THROTTLE_TOKENS,
            "tokenRatio": THROTTLE_RATIO,
        }
        policy = {
            "maxAttempts": max_attempts,
            "initialBackoff": f"{FIRST_BACKOFF_S}s",
            "maxBackoff": f"{MOST_BACKOFF_S}s",
            "backoffMultiplier": BACKOFF_FACTOR,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        config["methodConfig"] = [{"name": [{"service": _SERVICE}], "retryPolicy": policy}]
    return json.dumps(config)


def check_fork(opened: Collection[object]) -> None:
    """Refuse to go on in a child process if its parent had opened channels.

    Raises:
        RuntimeError: it has, and calls would fail or hang without a reason.
    """
    if opened and os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() not in _TRUE:
        raise RuntimeError(
            "the client was used before the process forked, which gRPC does not survive: use it in "
            "the child alone, or set GRPC_ENABLE_FORK_SUPPORT=1 before grpc is imported"
        )


def bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    """Give the metadata or the header that carries a token.

    Raises:
        ValueError: it has characters that a header cannot carry; the message does not show it.
    """
    if token is None:
        return ()
    if not re.fullmatch("[!-~]+", token):  # gRPC would say so, too, but with the token
        raise ValueError("token: must be visible ASCII characters without spaces")
    return (("authorization", f"Bearer {token}"),)


def _one_target(targets: Sequence[str]) -> tuple[str, str | None]:
    """Join addresses to one target, and give the host that all have, or "" if they differ.

    gRPC takes either IPv4 addresses or IPv6 ones; the former have a form among the latter.
    """
    if not targets:
        raise ValueError("target: at least one address is needed")
    if len(targets) == 1:
        return targets[0], None
    pairs = [_host_and_port(each) for each in targets]
    hosts = {host for host, _ in pairs}
    addresses = [(ipaddress.ip_address(_number(host)), port) for host, port in pairs]
    only_v4 = all(address.version == 4 for address, _ in addresses)
    if only_v4:
        joined = "ipv4:" + ",".join(f"{address}:{port}" for address, port in addresses)
    else:
        joined = "ipv6:" + ",".join(
            f"[{address if address.version == 6 else f'::ffff:{address}'}]:{port}"
            for address, port in addresses
        )
    return joined, hosts.pop() if len(hosts) == 1 else ""


def _host_and_port(target: str) -> tuple[str, int]:
    found = _ADDRESS.fullmatch(target)
    if found is None:
        raise ValueError(f"target: {target!r} in a list is not address:port")
    return found["v6"] or found["host"], int(found["port"])


def _number(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise ValueError(
            f"target: {host!r} in a list is a name, and gRPC looks up one only: give addresses, or "
            "a single target dns:///name:port whose name has them all"
        ) from None
