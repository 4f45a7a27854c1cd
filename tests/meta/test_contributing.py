"""The family that CONTRIBUTING.md builds works as it stands there."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rerank_sidecar.app import build_engine
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.loading import families
from rerank_sidecar.settings import read_settings
from rerank_sidecar.types import Document, RerankRequest

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
BLOCK = re.compile(r"```python\n# sidecar/(\S+)\.py\n(.*?)```", re.DOTALL)
REQUEST = RerankRequest("query", (Document("four"), Document("seventy"), Document("six six")))


@pytest.fixture(autouse=True)
def the_family_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for path, code in BLOCK.findall(PAGE.read_text("utf-8")):
        name = path.replace("/", ".")
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, name, "exec"), module.__dict__)  # noqa: S102 - our own page
    family = module.LengthFamily()
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, family))


async def test_it_scores_through_the_engine() -> None:
    settings = read_settings(model="length", family_options=["characters=7"])
    async with build_engine(settings) as engine:
        result = await engine.rerank(REQUEST)
        [model, _] = engine.models()
    assert [(each.index, each.score and each.score.value) for each in result.results] == [
        (1, 1.0),
        (2, 1.0),
        (0, 0.25),
    ]
    assert (model.model.name, model.model.version, model.family) == ("length", "1-7", "length")
    assert result.summary.usage.pairs == 3


async def test_it_does_not_pass_for_another_model() -> None:
    with pytest.raises(InvalidSetting, match="'some/model' is no model of the family length"):
        async with build_engine(read_settings(model="some/model", family="length")):
            raise AssertionError("started")


@pytest.mark.parametrize("option", ["characters=many", "letters=7"])
async def test_its_options_are_checked(option: str) -> None:
    settings = read_settings(model="length", family_options=[option])
    with pytest.raises(InvalidSetting, match=f"family_options.{option.partition('=')[0]}: "):
        async with build_engine(settings):
            raise AssertionError("started")
