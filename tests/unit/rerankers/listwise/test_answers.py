"""Whatever a chat model says, a full order of the documents comes of it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerank_sidecar.rerankers.listwise.answers import completed, read_order

PIECES = st.sampled_from(
    [
        *("[1]", "[2]", "[3]", "[20]", "[0]", "[-1]", "[99]", "[1, 2]", "[", "]", "[[2]]", "[ 3 ]"),
        *(
            " > ",
            ">",
            ", ",
            "\n",
            " = ",
            "->",
            "&gt;",
            "1.",
            "2)",
            "1",
            "2",
            "3",
            "0.5",
            "1e9",
            "²",
        ),
        *("<think>", "</think>", "<thinking>", "```json", "```", "{", "}", '"id": ', '"rank": '),
        *(
            "Passage ",
            "documents",
            "the best is",
            "I cannot",
            "null",
            "NaN",
            "\0",
            "٣",
            "９",
            "\ud800",
        ),
        *("9" * 5000, "<|channel|>final<|message|>", "Rank 1: "),
    ]
)
ANSWERS = st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=200)


@given(answer=ANSWERS, count=st.integers(1, 25))
@example(answer="[" * 20_000 + "]" * 20_000, count=3)
@example(answer='{"a":' * 5000, count=3)
def test_every_answer_gives_a_full_order(answer: str, count: int) -> None:
    named = read_order(answer, count)
    assert len(set(named)) == len(named)
    assert sorted(completed(named, count)) == list(range(count))
    assert completed(named, count)[: len(named)] == named


@given(order=st.permutations(range(1, 21)), cut=st.integers(0, 20))
def test_what_is_left_out_keeps_its_order_behind_what_is_named(order: list[int], cut: int) -> None:
    said = " > ".join(f"[{number}]" for number in order[:cut])
    places = completed(read_order(said, 20), 20)
    assert places[:cut] == [number - 1 for number in order[:cut]]
    assert places[cut:] == sorted(places[cut:])


@pytest.mark.parametrize(
    "answer",
    [
        "[3] > [1] > [2]",
        "[3]>[1]>[2]",
        "[3] &gt; [1] &gt; [2]",
        "3 > 1 > 2",
        "3, 1, 2",
        "3,1,2",
        "3 1 2",
        "3\n1\n2",
        "[3, 1, 2]",
        "[3], [1] and [2]",
        "**[3]** > **[1]** > **[2]**",
        "`[3] > [1] > [2]`",
        "[[3]] > [[1]] > [[2]]",
        "[ 03 ] > [ 01 ] > [ 02 ]",
        "[٣] > [١] > [٢]",
        "[Passage 3] > [Passage 1] > [Passage 2]",
        "Passage 3 > Passage 1 > Passage 2",
        "passage_3, passage_1, passage_2",
        "doc3 > doc1 > doc2",
        "The order is 3, then 1 and 2.",
        "Sure! Here is the ranking:\n\n[3] > [1] > [2]\n\nLet me know if you need more.",
        "I weighed [1] and [2] against [3]. The ranking is: [3] > [1] > [2].",
        "[3] > [1] > [2]. Passages [1], [2] and [3] are all on topic.",
        "Of these 3 passages: 3 > 1 > 2",
        "1. [3] because it says so\n2. [1] since it nearly does\n3. [2], which does not",
        "1. Passage 3\n2. Passage 1\n3. Passage 2",
        "1) 3\n2) 1\n3) 2",
        "Rank 1: 3\nRank 2: 1\nRank 3: 2",
        "Passage 3: 0.91\nPassage 1: 0.42\nPassage 2: 0.05",
        '{"ranking": [3, 1, 2]}',
        '["[3]", "[1]", "[2]"]',
        '```json\n[{"id": 3, "score": 0.9}, {"id": 1, "score": 0.4}, {"id": 2, "score": 0}]\n```',
        '{"results": [{"score": 9, "passage": "[3]"}, {"score": 4, "passage": "[1]"}]}',
        "<think>\n[1] > [2] > [3], or rather not\n</think>\n\n[3] > [1] > [2]",
        "[1] > [2] > [3], or rather not\n</think>\n\n[3] > [1] > [2]",
        "<|channel|>analysis<|message|>[1] > [2]<|end|><|channel|>final<|message|>[3] > [1] > [2]",
        "<answer>[3] > [1] > [2]</answer>",
        "[3] > [1] > [3] > [1] > [2]",
        "[3] > [7] > [1] > [0] > [2] > [99999999999999999999]",
        "[3] > [1]",
        "[3] > [1] > [",
        "[3]",
        "3",
    ],
)
def test_an_order_is_found_in(answer: str) -> None:
    assert completed(read_order(answer, 3), 3) == [2, 0, 1]


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n ",
        "I'm sorry, but I can't help with that.",
        "I cannot rank these 3 passages.",
        "As of 2024, none is relevant.",
        "[0] > [4] > [-1]",
        "<think>[3] > [1] > [2], then again",
        "null",
        "{}",
        "[]",
        "A > B > C",
        "100% of them, 0.3 at best",
    ],
)
def test_no_order_is_found_in(answer: str) -> None:
    assert read_order(answer, 3) == []


@pytest.mark.parametrize(
    ("answer", "order"),
    [
        ("| Rank | Passage |\n|---|---|\n| 1 | 3 |\n| 2 | 1 |\n| 3 | 2 |", [3, 1, 2]),
        ("1. Passage 3 (score 0.98)\n2. Passage 1 (score 0.5)\n3. Passage 2 (0.1)", [3, 1, 2]),
        ("3 (best)\n1 (good)\n2 (bad)", [3, 1, 2]),
        ("【2】 > 【1】 > 【3】", [2, 1, 3]),
        ("２＞１＞３", [2, 1, 3]),
        ("[1] < [3] < [2]", [2, 3, 1]),
        ("2 | 1 | 3", [2, 1, 3]),
        ("P2 > P1 > P3", [2, 1, 3]),
        ("[2 > 1 > 3]", [2, 1, 3]),
        ("[2, 1] > [3]", [2, 1, 3]),
        ("[3] > [1] > " * 5000, [3, 1]),
        ('{"1": 3, "2": "[1]", "3": 2}', [3, 1, 2]),
        ('{"1": 0.3, "2": 0.1, "3": 0.9}', [3, 1, 2]),
        ("Passage 3 is best, followed by passage 1 and passage 2.", [3, 1, 2]),
        ("The best is [2]. [1] and [3] are off topic.", [2, 1, 3]),
        ("[1] is off topic, [2] and [3] are not.\n\nAnswer: [2], [3]", [2, 3]),
        ("[1], [2] and [3] were given. They rank so: [3], [1], [2].", [3, 1, 2]),
    ],
)
def test_other_ways_to_write_an_order(answer: str, order: list[int]) -> None:
    assert [place + 1 for place in read_order(answer, 3)] == order
