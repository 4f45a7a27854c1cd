"""Measures of ranking quality, computed by trec_eval's own code through ir-measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ir_measures

from rerank_sidecar.evaluation.collection import Judgements

CUTOFF = 10

MEASURES = ("nDCG@10", "MRR@10", "P@1", "recall@10")
"""The measures in the order in which they are reported."""


def measure(
    rankings: Mapping[str, Sequence[str]], judgements: Judgements, min_grade: int
) -> dict[str, float]:
    """Measure rankings (query id -> document ids, best first) and average over their queries.

    nDCG takes the grade as the gain and counts unjudged documents as not relevant. The other
    measures are binary: relevant means a grade of at least `min_grade`. The values are those of
    `trec_eval -M 10 -l MIN_GRADE -m ndcg_cut.10 -m recip_rank -m P.1 -m recall.10`, which
    averages over the queries that are both ranked and judged.
    """
    by_name = {
        "nDCG@10": ir_measures.nDCG @ CUTOFF,
        "MRR@10": ir_measures.RR(rel=min_grade),
        "P@1": ir_measures.P(rel=min_grade) @ 1,
        "recall@10": ir_measures.R(rel=min_grade) @ CUTOFF,
    }
    judged = {query: judgements[query] for query in rankings}
    evaluator = ir_measures.pytrec_eval.evaluator(list(by_name.values()), judged)
    found = evaluator.calc_aggregate(
        {query: _descending_scores(ranking) for query, ranking in rankings.items()}
    )
    return {name: float(found[by_name[name]]) for name in MEASURES}


def _descending_scores(ranking: Sequence[str]) -> dict[str, float]:
    # trec_eval sorts by score and breaks ties by id; scores made from ranks keep our order. It has
    # no cutoff for the reciprocal rank, so that the ranking itself is cut, as its -M option does.
    return {document: -float(rank) for rank, document in enumerate(ranking[:CUTOFF])}
