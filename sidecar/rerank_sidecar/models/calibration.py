"""Sample queries and passages on which the ranges of activations are measured."""

from __future__ import annotations

import json
from importlib.resources import files


def read_calibration_pairs() -> list[tuple[str, str]]:
    """Give the queries and passages that are shipped with the package, in a fixed order.

    They were written for this project and are under its licence.
    """
    text = files(__package__).joinpath("calibration.jsonl").read_text(encoding="utf-8")
    pairs = (json.loads(line) for line in text.splitlines())
    return [(pair["query"], pair["passage"]) for pair in pairs]
