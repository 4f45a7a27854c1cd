"""JSON as RFC 8259 has it, also where fast parsers refuse it: escaped lone surrogates.

Section 8.2 lets them pass. Clients in JavaScript and Java make them by cutting a text inside an
emoji.
"""

from __future__ import annotations

import json
import re
from typing import Any, Never

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class UnreadableJson(ValueError):
    """A text that is not JSON; the message goes on from its name and never quotes it."""


def read_json(text: str) -> Any:  # noqa: ANN401
    """Read one JSON value; lone surrogates in its strings become U+FFFD.

    Raises:
        UnreadableJson: the text is not JSON, or has an integer of thousands of digits.
        RecursionError: it is nested too deeply.
    """
    try:
        return without_lone_surrogates(json.loads(text, parse_constant=_refuse_constant))
    except UnreadableJson:
        raise
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UnreadableJson(f"is not JSON: {error.msg} ({where})") from None
    except ValueError:
        raise UnreadableJson("has a number that is out of range") from None


def without_lone_surrogates(value: Any) -> Any:  # noqa: ANN401
    """Put U+FFFD for each lone surrogate in a JSON value's strings and names.

    Raises:
        RecursionError: it is nested too deeply.
    """
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [without_lone_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {
            without_lone_surrogates(name): without_lone_surrogates(each)
            for name, each in value.items()
        }
    return value


def _refuse_constant(name: str) -> Never:
    raise UnreadableJson(f"is not JSON: {name} is not a JSON number")
