"""`rerank-sidecar rank`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank_sidecar.cli.candidates import Candidate, read_candidates
from rerank_sidecar.cli.options import takes_settings
from rerank_sidecar.cli.output import complain, one_line, plain_table, print_json, results_console
from rerank_sidecar.cli.own_engine import own_engine
from rerank_sidecar.errors import RerankError, error_row
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import (
    Normalization,
    RankedDocument,
    RerankOptions,
    RerankRequest,
    RerankResult,
    Score,
)


@takes_settings("Model", "Long documents", "Limits", "Computing")
def rank(  # noqa: PLR0913 - a parameter is a flag
    settings: Settings,
    *,
    query: Annotated[str, typer.Option("--query", "-q", help="What the texts are ranked for.")],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE|-]", help="Lines of text, or JSON Lines with `text` and `id`."
        ),
    ] = None,
    top_n: Annotated[
        int | None, typer.Option(help="Show so many of the best. Default: all.")
    ] = None,
    normalize: Annotated[
        Normalization,
        typer.Option(
            help="`unit` maps scores into [0, 1], the same way every time; `logit` turns "
            "probabilities back into logits."
        ),
    ] = Normalization.NONE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Rank lines of text against a query, in this process, with no server.

    Reads FILE or what is piped in and prints the best first: rank, score, where the text came from
    (its `id`, or the line it stood on) and the passage that earned the score.
    """
    candidates = read_candidates(file)
    options = RerankOptions(top_n=top_n, normalization=normalize)
    request = RerankRequest(query, tuple(each.document for each in candidates), options)
    result = asyncio.run(_rerank(settings, request))
    if as_json:
        print_json(_as_json(query, candidates, result))
    else:
        _print_table(candidates, result)
    for failed, error in _failures(result):
        complain(f"{_origin(candidates[failed.index])} could not be scored: {error.message}")
    if not _scored(result):
        raise typer.Exit(1)


async def _rerank(settings: Settings, request: RerankRequest) -> RerankResult:
    async with own_engine(settings) as engine:
        return await engine.rerank(request)


def _scored(result: RerankResult) -> list[tuple[RankedDocument, Score]]:
    return [(each, each.score) for each in result.results if each.score is not None]


def _failures(result: RerankResult) -> list[tuple[RankedDocument, RerankError]]:
    return [(each, each.error) for each in result.results if each.error is not None]


def _print_table(candidates: Sequence[Candidate], result: RerankResult) -> None:
    table = plain_table("rank", "score", "from", "text")
    for place, (ranked, score) in enumerate(_scored(result), start=1):
        candidate = candidates[ranked.index]
        cells = (_origin(candidate), _excerpt(candidate.document.text, score))
        table.add_row(str(place), f"{score.value:.4f}", *map(one_line, cells))
    console = results_console()
    console.print(table)
    summary = result.summary
    console.print(
        f"\n{summary.model.name} {summary.model.version} · {summary.score_kind} scores · "
        f"texts: {len(candidates)} · {summary.timing.total_us / 1000:.0f} ms",
        style="dim",
    )


def _origin(candidate: Candidate) -> str:
    return candidate.document.id or f"line {candidate.line}"


def _excerpt(text: str, score: Score) -> str:
    window = score.best_window
    if window is None or window.start == 0:
        return text
    return f"… {text[window.start : window.end]}"


def _as_json(query: str, candidates: Sequence[Candidate], result: RerankResult) -> dict[str, Any]:
    return {
        "query": query,
        **asdict(result.summary),
        "results": [
            {"rank": place, **_source(candidates, ranked), **_score_fields(score)}
            for place, (ranked, score) in enumerate(_scored(result), start=1)
        ],
        "errors": [
            {
                **_source(candidates, ranked),
                "reason": error_row(error).reason,
                "message": error.message,
            }
            for ranked, error in _failures(result)
        ],
    }


def _source(candidates: Sequence[Candidate], ranked: RankedDocument) -> dict[str, Any]:
    candidate = candidates[ranked.index]
    return {
        "index": ranked.index,
        "line": candidate.line,
        "id": candidate.document.id,
        "text": candidate.document.text,
    }


def _score_fields(score: Score) -> dict[str, Any]:
    fields = asdict(score)
    return {"score": fields.pop("value"), **fields}
