"""SQL in pieces: what is written as it stands, and what travels beside it as a parameter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_PERCENT = re.compile(r"%(.?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that never becomes part of a statement's text."""

    value: object


Sql = Sequence[str | Parameter]
"""A statement in pieces; each driver writes its own placeholders for the parameters."""


def written(
    sql: Sql, placeholder: Callable[[int], str], literal: Callable[[str], str] = str
) -> tuple[str, list[object]]:
    """Give a driver its text and the values for it.

    `placeholder` writes the place of a parameter, counted from 1; `literal` escapes what the driver
    would take for one.
    """
    text: list[str] = []
    values: list[object] = []
    for piece in sql:
        if isinstance(piece, Parameter):
            values.append(piece.value)
            text.append(placeholder(len(values)))
        else:
            text.append(literal(piece))
    return "".join(text), values


def check_count(name: str, value: object, least: int) -> None:
    """See to it that an argument is a whole number, and not too small.

    Raises:
        TypeError: it is no int.
        ValueError: it is less than `least`.
    """
    if not isinstance(value, int):
        raise TypeError(f"{name}: must be an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: must be at least {least}")


def quoted(name: str) -> str:
    """Write the name of a table or column so that PostgreSQL reads it as just that.

    Raises:
        TypeError: it is no text.
        ValueError: it is empty or has a NUL, which no name can have.
    """
    if not isinstance(name, str):
        raise TypeError(f"a name of a table or column must be a text, not {type(name).__name__}")
    if not name or "\0" in name:
        raise ValueError("a name of a table or column must not be empty or have a NUL")
    return '"' + name.replace('"', '""') + '"'


def with_places(text: str, values: Sequence[object]) -> Iterator[str | Parameter]:
    """Read SQL in which `%s` stands for each value, in their order, and `%%` for a percent sign.

    Raises:
        ValueError: there are more or fewer places than values, or a percent sign stands alone.
    """
    rest = list(values)
    end = 0
    for found in _PERCENT.finditer(text):
        yield text[end : found.start()]
        end = found.end()
        if found[1] == "%":
            yield "%"
        elif found[1] != "s":
            raise ValueError("a condition has %s for each parameter and %% for a percent sign")
        elif not rest:
            raise ValueError(f"a condition has more places than its {len(values)} parameters")
        else:
            yield Parameter(rest.pop(0))
    if rest:
        raise ValueError(f"a condition has fewer places than its {len(values)} parameters")
    yield text[end:]
