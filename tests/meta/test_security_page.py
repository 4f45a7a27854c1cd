"""What docs/security.md shows can be used as it stands."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rerank_sidecar.cli.settings_reference import setting_rows
from rerank_sidecar.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
ROWS = list(setting_rows())


def test_variables_and_flags_exist() -> None:
    variables = {name for row in ROWS for name in row.environment}
    assert set(re.findall(r"\bRERANK_SIDECAR_[A-Z_]+", PAGE)) <= variables
    serve = " ".join(re.findall(r"rerank-sidecar serve (.+)", PAGE))
    flags = set(re.findall(r"--[a-z-]+", serve))
    assert flags
    assert flags <= {row.flag for row in ROWS}


def test_every_setting_of_who_gets_in_is_explained() -> None:
    unexplained = [
        name
        for name in Settings.model_fields
        if name.startswith(("auth_", "tls_", "weaviate_", "metrics_auth"))
        and name not in PAGE
        and f"--{name.replace('_', '-')}" not in PAGE
    ]
    assert not unexplained


@pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="needs the Debian package docker-compose"
)
def test_the_compose_example_renders(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "docker-compose.yml").write_text(example)
    (tmp_path / "rerank-tokens.txt").write_text("token")
    rendered = subprocess.run(
        ["docker-compose", "config", "--services"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert rendered.returncode == 0, rendered.stderr
    assert set(rendered.stdout.split()) == {"rerank-sidecar", "weaviate"}
