"""Which queries a model can read, judged by the scripts of their letters."""

from __future__ import annotations

from functools import cache

import regex


def reads_query(query: str, scripts: frozenset[str] | None) -> bool:
    """Tell whether a model that reads these scripts reads the query; None reads all scripts.

    A query is unreadable when at least half of its letters are of other scripts, by the Unicode
    Script property (UAX #24). Letters that many scripts share (Common and Inherited, such as the
    Japanese prolonged sound mark) are not counted. A query without letters is readable.
    """
    if scripts is None:
        return True
    letters = len(_letters().findall(query))
    own = len(_letters_of(scripts).findall(query))
    return letters == 0 or 2 * own > letters


@cache
def _letters() -> regex.Pattern[str]:
    return regex.compile(r"[\p{L}--\p{Script=Common}--\p{Script=Inherited}]", regex.V1)


@cache
def _letters_of(scripts: frozenset[str]) -> regex.Pattern[str]:
    members = "||".join(rf"\p{{Script={script}}}" for script in sorted(scripts))
    return regex.compile(rf"[\p{{L}}&&[{members}]]", regex.V1)
