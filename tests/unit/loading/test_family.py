"""What a family is given to load a model with: its options, its folder, what closes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rerank_sidecar.errors import InvalidSetting, ModelUnavailable
from rerank_sidecar.loading.families import FAMILIES
from rerank_sidecar.loading.family import Family, Loading
from rerank_sidecar.settings import read_settings
from tests.unit.rerankers.toy_members import ToyMember


class ToyOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    window: int = Field(20, ge=1)
    words: str = "few"

    @field_validator("words")
    @classmethod
    def _few(cls, words: str) -> str:
        if words != "few":
            raise ValueError("must be few")
        return words

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.window > 100:
            raise ValueError("window and words do not fit")
        return self


def loading(stack: AsyncExitStack, **settings: Any) -> Loading:
    executor = stack.enter_context(ThreadPoolExecutor(1))
    members = (ToyMember("cheap"), ToyMember("dear"))
    return Loading("toy", read_settings(**settings), executor, stack, members)


async def test_options_are_read_in_the_form_of_the_family() -> None:
    async with AsyncExitStack() as stack:
        assert loading(stack).options(ToyOptions).window == 20
        given = loading(stack, family_options=["window=5"])
        assert given.options(ToyOptions).window == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windo": 5}, "family_options.windo: this family has no such option"),
        ({"window": "many"}, "family_options.window: Input should be a valid integer"),
        ({"window": 0}, "family_options.window: Input should be greater"),
        ({"words": "many"}, "family_options.words: must be few"),
        ({"window": 101}, "family_options: window and words do not fit"),
        ({"a": 1, "b": 2}, "family_options.a: .*; family_options.b: "),
    ],
)
async def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(InvalidSetting, match=f"^{message}") as caught:
            loading(stack, family_options=options).options(ToyOptions)
    assert "many" not in caught.value.message


@pytest.mark.parametrize("family", FAMILIES, ids=[each.name for each in FAMILIES])
async def test_every_family_refuses_an_option_that_it_does_not_know(family: Family) -> None:
    sources = {
        "late_interaction": "embedded",
        "llm_listwise": "listwise:http://127.0.0.1:9/v1#nobody",
        "remote": "tei:http://127.0.0.1:9",
        "triton": "triton:http://127.0.0.1:9#nobody",
    }
    own = {"triton": {"tokenizer": "./nowhere"}}.get(family.name, {})
    async with AsyncExitStack() as stack:
        source = sources.get(family.name, family.name)
        given = loading(stack, model=source, family_options={"no_such_option": 1, **own})
        with pytest.raises(InvalidSetting, match=r"family_options\.no_such_option: "):
            await family.load(given)


async def test_a_folder_that_was_looked_at_is_not_looked_for_again(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        not_looked_at = loading(stack, model="./gone")
        assert await replace(not_looked_at, found=tmp_path).folder() == tmp_path
        with pytest.raises(ModelUnavailable, match="does not exist"):
            await not_looked_at.folder()
