"""Servers behind TLS whose certificate is of an authority of one's own."""

from __future__ import annotations

import ssl

import pytest
import trustme
from aiohttp import web

from rerank_sidecar.errors import RemoteUnavailable
from rerank_sidecar.types import Score
from tests.unit.rerankers.remote.stand_in import StandIn, like_cohere, opened
from tests.unit.rerankers.toy_models import outcomes_of


async def test_certificates_are_checked_unless_nobody_wants_it() -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server, application = StandIn(like_cohere), web.Application()
    application.router.add_post("/v2/rerank", server.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    source = f"cohere:https://127.0.0.1:{runner.addresses[0][1]}#m"
    try:
        with authority.cert_pem.tempfile() as ca_file:
            async with opened(source, ca_file=ca_file) as reranker:
                assert await outcomes_of(reranker, "q", ["0.5"]) == [Score(0.5)]
        async with opened(source, verify=False) as reranker:
            assert await outcomes_of(reranker, "q", ["0.5"]) == [Score(0.5)]
        async with opened(source, max_tries=1) as reranker:
            with pytest.raises(RemoteUnavailable, match="ConnectError"):
                await outcomes_of(reranker, "q", ["0.5"])
    finally:
        await runner.cleanup()
    assert len(server.asked) == 2
