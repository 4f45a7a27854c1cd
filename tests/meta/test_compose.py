"""The compose file renders under every profile, and what it mounts and watches is there."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from rerank_sidecar.settings import Settings
from rerank_sidecar.telemetry import metrics

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
DASHBOARD = json.loads(
    (ROOT / "deploy" / "grafana" / "dashboards" / "rerank-sidecar.json").read_text("utf-8")
)
PROFILES = {
    "": {"rerank-sidecar"},
    "weaviate": {"rerank-sidecar", "weaviate"},
    "qdrant": {"rerank-sidecar", "qdrant"},
    "pgvector": {"rerank-sidecar", "pgvector"},
    "monitoring": {"rerank-sidecar", "prometheus", "grafana"},
}

needs_compose = pytest.mark.skipif(
    shutil.which("docker-compose") is None, reason="needs the Debian package docker-compose"
)

_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


@needs_compose
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_renders(profile: str) -> None:
    wanted = ["--profile", profile] if profile else []
    assert set(rendered(*wanted)["services"]) >= PROFILES[profile]


@needs_compose
def test_a_gpu_is_for_the_sidecar_alone_and_changes_nothing_else() -> None:
    wanted = [word for profile in PROFILES if profile for word in ("--profile", profile)]
    files = ["-f", "docker-compose.yml", "-f", "docker-compose.cuda.yml"]
    plain, cuda = rendered(*wanted)["services"], rendered(*files, *wanted)["services"]
    before, sidecar = plain.pop("rerank-sidecar"), cuda.pop("rerank-sidecar")
    assert cuda == plain
    [device] = sidecar["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert sidecar["build"].pop("args") == {"ACCELERATOR": "cuda"}
    assert sidecar["environment"].pop("RERANK_SIDECAR_DEVICE") == "cuda"
    del sidecar["deploy"], before["deploy"]
    assert sidecar == before


def rendered(*arguments: str) -> dict[str, Any]:
    ran = subprocess.run(
        ["docker-compose", *arguments, "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    services: dict[str, Any] = yaml.safe_load(ran.stdout)
    return services


def test_profiles_are_those_of_the_services() -> None:
    assert {name for name, each in SERVICES.items() if "profiles" not in each} == PROFILES[""]
    assert {name for each in SERVICES.values() for name in each.get("profiles", ())} == set(
        PROFILES
    ) - {""}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_pinned_bounded_watched_and_private(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name != "weaviate")
    assert "build" in service or re.fullmatch(r"[\w./-]+:v?\d[\w.-]+", service["image"])
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert service["healthcheck"]["test"][0] == "CMD"
    assert all(each.startswith("127.0.0.1:") for each in service["ports"])
    for volume in service["volumes"]:
        source = volume.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_the_sidecar_may_write_nowhere_but_to_its_cache() -> None:
    sidecar = SERVICES["rerank-sidecar"]
    assert sidecar["read_only"]
    assert sidecar["cap_drop"] == ["ALL"]
    assert [each.split(":")[1] for each in sidecar["volumes"]] == ["/home/sidecar/.cache"]


@pytest.mark.parametrize("file", ["Dockerfile", "docker-compose.yml", "docker-compose.cuda.yml"])
def test_every_setting_that_is_given_exists(file: str) -> None:
    given = re.findall(r"\bRERANK_SIDECAR_(\w+)", (ROOT / file).read_text("utf-8"))
    assert given
    assert {name.lower() for name in given} <= Settings.model_fields.keys()


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    named = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    known = {f"{each._name}{suffix}" for each in named for suffix in _SUFFIXES[str(each._type)]}
    asked = {
        name
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for name in re.findall(r"\brerank_sidecar_\w+", target["expr"])
    }
    assert asked
    assert asked <= known
