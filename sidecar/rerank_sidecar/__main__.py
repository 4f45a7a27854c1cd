"""The console script: starts the command line, or says which line installs what it needs."""

from __future__ import annotations

import sys

SERVER_MODULES = frozenset(
    {
        "grpc_health",
        "grpc_reflection",
        "grpc_status",
        "httptools",
        "huggingface_hub",
        "ir_measures",
        "msgspec",
        "numpy",
        "openvino",
        "prometheus_client",
        "pydantic",
        "pydantic_settings",
        "pythonjsonlogger",
        "regex",
        "rich",
        "starlette",
        "threadpoolctl",
        "tokenizers",
        "typer",
        "uvicorn",
    }
)
"""The modules that the `server` extra brings and the command line imports by name."""


def main() -> None:
    """Run the command line; without the `server` extra, name the line that installs it."""
    try:
        from rerank_sidecar.cli.commands import run

        run()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in SERVER_MODULES:
            raise
        sys.stderr.write(
            "The rerank-sidecar command needs its server extra; this line installs it:\n"
            "pip install 'rerank-sidecar[server]'\n"
        )
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
