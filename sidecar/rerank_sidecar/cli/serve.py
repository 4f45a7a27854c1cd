"""`rerank-sidecar serve`."""

from __future__ import annotations

import asyncio

from rerank_sidecar.cli.options import takes_settings
from rerank_sidecar.cli.settings_reference import SETTING_GROUPS
from rerank_sidecar.settings import Settings


@takes_settings(*SETTING_GROUPS)
def serve(settings: Settings) -> None:
    """Serve a reranker over HTTP and gRPC, in the dialect that each client speaks already.

    Starts on the embedded model, which needs no download, unless `--model` names another. Prints
    the addresses in use, and stops on Ctrl-C or SIGTERM when the running requests have finished.
    Every flag can also be an environment variable, `RERANK_SIDECAR_` and the flag's name in
    capitals, or a line of the TOML file; the command line wins over both. Several models are
    `[[models]]` tables of that file; SIGHUP reads it again and changes what is served.
    """
    from rerank_sidecar import app

    asyncio.run(app.serve(settings))
