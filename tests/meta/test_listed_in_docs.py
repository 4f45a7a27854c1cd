"""Whatever a user may ask for by name has its row in the docs."""

from pathlib import Path

import pytest

from rerank_sidecar.api.dialects import DIALECTS
from rerank_sidecar.loading.families import FAMILIES
from rerank_sidecar.rerankers.remote.engines import ENGINES

DOCS = Path(__file__).parents[2] / "docs"
NAMES = [
    *(("rerankers.md", family.name) for family in FAMILIES),
    *(("rerankers.md", engine) for engine in ENGINES),
    *(("doors.md", mount) for mount in sorted({each.mount for each in DIALECTS if each.mount})),
]


@pytest.mark.parametrize(("page", "name"), NAMES)
def test_a_table_names_it(page: str, name: str) -> None:
    rows = (DOCS / page).read_text("utf-8").splitlines()
    cells = [cell for row in rows if row.startswith("| ") for cell in row.split("|")[1:3]]
    assert any(f"`{name}`" in cell for cell in cells)
