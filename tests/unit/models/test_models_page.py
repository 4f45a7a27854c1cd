"""docs/models.md says what the code does."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from rerank_sidecar.loading.families import family_name
from rerank_sidecar.models.listing import ModelState, list_models
from rerank_sidecar.score_kinds import SCORE_SCALES, ScoreKind
from rerank_sidecar.settings import read_settings

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text("utf-8")


@pytest.mark.parametrize("kind", ScoreKind)
def test_score_kinds_are_told_as_they_are(kind: ScoreKind) -> None:
    row = re.search(rf"^\| `{kind}` \|.*$", PAGE, re.MULTILINE)
    assert row is not None
    *_, rule, floor = (cell.strip() for cell in row[0].strip("|").split("|"))
    scale = SCORE_SCALES[kind]
    assert rule == f"`{scale.rule}`"
    assert floor == (f"{scale.floor:g}" if math.isfinite(scale.floor) else "none")


def test_recommended_models_are_in_the_table(tmp_path: Path) -> None:
    listed = list_models(read_settings(cache_dir=tmp_path), family_name)
    for each in listed:
        if each.state is ModelState.HUB:
            assert f"| `{each.id}` |" in PAGE
