"""A model's card is read for its licence and languages, and may be broken."""

from pathlib import Path

import pytest

from rerank_sidecar.models.model_card import Card, read_card


def test_licence_and_languages(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\nlanguage:\n- en\n- ko\n---\nhello")
    assert read_card(tmp_path) == Card("mit", ("en", "ko"))


@pytest.mark.parametrize("head", ["---\na: [\n---\n", "---\n- 1\n---\n", "no head"], ids=repr)
def test_a_broken_card_says_nothing(tmp_path: Path, head: str) -> None:
    (tmp_path / "README.md").write_text(head)
    assert read_card(tmp_path) == Card()


def test_no_card_says_nothing(tmp_path: Path) -> None:
    assert read_card(tmp_path) == Card()
