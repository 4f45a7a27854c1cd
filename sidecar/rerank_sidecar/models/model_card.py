"""Reads a model's licence and languages from the README that comes with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Card:
    """What the card says; empty where it says nothing. Languages are codes such as `en`."""

    licence: str = ""
    languages: tuple[str, ...] = ()


def read_card(folder: Path) -> Card:
    """Read the head of a folder's README.md as the hub does.

    One that is missing or broken says nothing.
    """
    readme = folder / "README.md"
    if not readme.is_file():
        return Card()
    import yaml
    from huggingface_hub import ModelCard

    try:
        card = ModelCard.load(readme, ignore_metadata_errors=True).data
    except (ValueError, yaml.YAMLError):
        return Card()
    languages = card.language or ()
    return Card(
        licence=str(card.license or ""),
        languages=(languages,) if isinstance(languages, str) else tuple(map(str, languages)),
    )
