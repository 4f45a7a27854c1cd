"""Schemathesis reads /openapi.json and tries every operation: what comes back is as described."""

import subprocess
import sys
from pathlib import Path

from tests.clients.running_door import RunningDoor

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
]

OPTIONS = {
    "--phases": "examples,coverage,fuzzing",
    "--checks": ",".join(CHECKS),
    "--max-time": "30",
    "--seed": "1",
    "--workers": "1",
    "--request-timeout": "30",
    # One that it made up itself could be so short that 504 is the right answer.
    "--header": "X-Request-Timeout-Ms: 30000",
    "--generation-database": "none",
}


def test_every_operation(sidecar: RunningDoor, tmp_path: Path) -> None:
    options = [word for option in OPTIONS.items() for word in option]
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            *("run", f"{sidecar.url}/openapi.json", "--no-color", *options),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    assert "Tested: " in ran.stdout
