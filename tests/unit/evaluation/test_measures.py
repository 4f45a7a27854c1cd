"""The measures equal what one works out by hand, and what trec_eval says of the same run."""

import math
from pathlib import Path

import pytest
import pytrec_eval

from rerank_sidecar.evaluation.collection import read_run
from rerank_sidecar.evaluation.measures import MEASURES, measure

JUDGEMENTS = {"q1": {"a": 3, "b": 0, "c": 1}, "q2": {"d": 2}}


def test_values_worked_out_by_hand() -> None:
    rankings = {"q1": ["b", "c", "x", "a"], "q2": ["d", "x"]}
    gain_q1 = 1 / math.log2(3) + 3 / math.log2(5)
    ideal_q1 = 3 / math.log2(2) + 1 / math.log2(3)
    expected = {
        "nDCG@10": (gain_q1 / ideal_q1 + 1) / 2,
        "MRR@10": (1 / 2 + 1) / 2,
        "P@1": (0 + 1) / 2,
        "recall@10": 1.0,
    }
    assert measure(rankings, JUDGEMENTS, 1) == pytest.approx(expected)


def test_least_grade_changes_the_binary_measures_alone() -> None:
    rankings = {"q1": ["c", "x", "a"], "q2": ["x", "d"]}
    lenient, strict = measure(rankings, JUDGEMENTS, 1), measure(rankings, JUDGEMENTS, 2)
    assert lenient["nDCG@10"] == strict["nDCG@10"]
    assert lenient["MRR@10"] == pytest.approx((1 + 1 / 2) / 2)
    assert strict["MRR@10"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert (lenient["P@1"], strict["P@1"]) == (0.5, 0.0)


def test_what_stands_below_ten_does_not_count() -> None:
    others = [f"x{number}" for number in range(10)]
    found = measure({"q2": [*others, "d"]}, JUDGEMENTS, 1)
    assert found == dict.fromkeys(MEASURES, 0.0)
    found = measure({"q2": [*others[:9], "d"]}, JUDGEMENTS, 1)
    assert found["MRR@10"] == pytest.approx(1 / 10)
    assert found["recall@10"] == 1.0


def test_the_order_given_is_the_order_measured() -> None:
    judgements = {"q": {"a": 1, "z": 0}}
    assert measure({"q": ["a", "z"]}, judgements, 1)["P@1"] == 1.0
    assert measure({"q": ["z", "a"]}, judgements, 1)["P@1"] == 0.0


def test_agrees_with_trec_eval_on_a_run_with_ties(tmp_path: Path) -> None:
    scores = {
        "q1": {"a": 2.0, "b": 2.0, "c": 16777217.0, "x": 16777216.0, "é": 2.0},
        "q2": {f"d{number}": float(number % 4) for number in range(30)} | {"d": 2.5},
        "q3": {"u": 1e-46, "v": 0.0},
    }
    judgements = {
        "q1": {"a": 1, "c": 2, "é": 3},
        "q2": {f"d{number}": number % 3 for number in range(30)} | {"d": 2},
        "q3": {"u": 1, "v": 0},
    }
    lines = [
        f"{query} Q0 {document} 0 {score!r} tag"
        for query, scored in scores.items()
        for document, score in scored.items()
    ]
    (tmp_path / "run.trec").write_text("\n".join(lines), "utf-8")
    found = measure(read_run(tmp_path / "run.trec"), judgements, 2)

    names = {"ndcg_cut_10", "P_1", "recall_10", "recip_rank"}
    evaluator = pytrec_eval.RelevanceEvaluator(judgements, names, relevance_level=2)
    by_query = evaluator.evaluate(scores).values()
    mean = {name: sum(each[name] for each in by_query) / len(scores) for name in names}
    assert found["nDCG@10"] == pytest.approx(mean["ndcg_cut_10"], abs=1e-12)
    assert found["P@1"] == pytest.approx(mean["P_1"], abs=1e-12)
    assert found["recall@10"] == pytest.approx(mean["recall_10"], abs=1e-12)
    assert found["MRR@10"] == pytest.approx(mean["recip_rank"], abs=1e-12)
