"""The JSON files of a model, read with care: whoever made them may have made mistakes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rerank_sidecar.errors import ModelNotServable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object from a file, with values that are checked when they are asked for.

    A null counts as absent. `within` is where the object lies in its file, such as "auto_map.".
    Every getter raises ModelNotServable, naming the file and the key, for a value of another type.
    """

    path: Path
    values: Mapping[str, Any]
    within: str = ""

    def text(self, key: str) -> str | None:
        """Give a string, None where there is none."""
        return self._value(key, str, "a string")

    def required_text(self, key: str) -> str:
        """Give a string that has to be there."""
        text = self.text(key)
        if text is None:
            raise self.wrong(key, "a string")
        return text

    def texts(self, key: str) -> list[str]:
        """Give a list of strings, empty where there is none."""
        values = self._value(key, list, "a list of strings") or []
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(key, "a list of strings")
        return values

    def whole_number(self, key: str) -> int | None:
        """Give an integer, which may be written as 512.0 or 1e30; None where there is none."""
        value = self.values.get(key)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bool):
            raise self.wrong(key, "a whole number")
        return self._value(key, int, "a whole number")

    def nested(self, key: str) -> JsonObject:
        """Give an object within this one, empty where there is none."""
        values = self._value(key, dict, "an object") or {}
        return JsonObject(self.path, values, f"{self.within}{key}.")

    def wrong(self, key: str, wanted: str) -> ModelNotServable:
        """Make the error that says what a key has to be."""
        return ModelNotServable(f"{self.path}: `{self.within}{key}` must be {wanted}")

    def _value(self, key: str, kind: type[T], wanted: str) -> T | None:
        value = self.values.get(key)
        if value is None or isinstance(value, kind):
            return value
        raise self.wrong(key, wanted)


def read_json_object(path: Path) -> JsonObject:
    """Read a JSON file that holds an object; a file that is not there reads as an empty one.

    Raises:
        ModelNotServable: it cannot be read, is not JSON, or holds something else.
    """
    values = parse_json_file(path) if path.is_file() else {}
    if not isinstance(values, dict):
        raise ModelNotServable(f"{path} must hold a JSON object")
    return JsonObject(path, values)


def parse_json_file(path: Path) -> object:
    """Read a JSON file that is there, whatever it holds.

    Raises:
        ModelNotServable: it cannot be read or is not JSON.
    """
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelNotServable(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelNotServable(f"{path} is not valid JSON") from error
    return content
