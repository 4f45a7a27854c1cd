"""The same order, in the forms that chat models give it, and what looks like one and is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_sidecar.rerankers.listwise.answers import completed, read_order
from rerank_sidecar.rerankers.listwise.prompt import messages

Form = Callable[[Sequence[int]], str]


def chained(sign: str, name: str = "{}") -> Form:
    return lambda order: sign.join(name.format(number) for number in order)


def listed(line: str) -> Form:
    return lambda order: "\n".join(line.format(*each) for each in enumerate(order, 1))


def rated(line: str) -> Form:
    """Documents as they were given, each with its score."""
    return lambda order: "\n".join(
        line.format(number, 1 - order.index(number) / 40) for number in sorted(order)
    )


FORMS: dict[str, Form] = {
    **{sign: chained(sign, "[{}]") for sign in (" > ", ">", " >> ", " ≥ ", " → ", " ⇒ ", ", ")},
    **{f"bare {sign}": chained(sign) for sign in (" > ", " ≻ ", "->", ", ", ",", "\n", "<br>")},
    "words": chained(" > ", "Passage {}"),
    "Chinese": chained("、", "段落{}"),
    "Korean": chained(" > ", "문서 {}"),
    "Spanish": chained(", ", "Pasaje {}"),
    "scores beside": chained(" > ", "{} (0.5)"),
    "LaTeX": lambda order: "$\\boxed{" + " \\succ ".join(map(str, order)) + "}$",
    "tags": lambda order: "<ol>" + "".join(f"<li>{number}</li>" for number in order) + "</ol>",
    "numbered": listed("{}. {}"),
    "numbered in parentheses": listed("({}) [{}]"),
    "numbered, explained": listed("{}. **Passage {}** - from 2019, unlike passage 1"),
    "numbered, explained with brackets": listed("{}. [{}] beats [2] and [1]"),
    "numbered in Chinese": listed("{}. 段落{}：最相关"),
    "ranks": listed("Rank {} - {}"),
    "first, second": listed("{0}th: {1}"),
    "Japanese ranks": listed("{}位：{}"),
    "lines, explained": listed("[{1}] is like [2], see also [1]"),
    "table": lambda order: "| Rank | Passage |\n|---|---|\n" + listed("| {} | {} | why |")(order),
    "table, other way": lambda order: (
        "| Passage | Rank |\n|---|---|\n"
        + "\n".join(f"| {number} | {order.index(number) + 1} |" for number in sorted(order))
    ),
    "CSV": lambda order: "rank,passage\n" + listed("{},{}")(order),
    "CSV of scores": lambda order: (
        "id,score\n"
        + "\n".join(f"{number},{1 / place:.3f}" for place, number in enumerate(order, 1))
    ),
    "YAML": listed("- rank: {}\n  id: {}"),
    "JSON lines": listed('{{"id": {1}, "score": 0.5}}'),
    "JSON objects": lambda order: json.dumps(
        [{"rank": place, "id": number, "why": "5 of 7"} for place, number in enumerate(order, 1)]
    ),
    "JSON objects, nested": lambda order: json.dumps(
        {"ranked": [{"passage": {"id": f"passage_{number}"}} for number in order]}, indent=2
    ),
    "Python objects": lambda order: str([{"id": number, "score": 0.5} for number in order]),
    "JSON, trailing comma": lambda order: '{"order": [' + ", ".join(map(str, order)) + ",]}",
    "JSON by place": lambda order: json.dumps(dict(enumerate(order, 1))),
    "tool call": lambda order: json.dumps({"name": "rank", "arguments": {"ids": list(order)}}),
    "scores of all": rated("Passage {}: {:.3f}"),
    "scores in records": rated('{{"id": {}, "score": {:.3f}}}'),
    "ranks of all": lambda order: "\n".join(
        f"[{number}]: rank {order.index(number) + 1}" for number in sorted(order)
    ),
}
BEFORE = (
    "",
    "Sure! Here are the 5 passages in order of relevance:\n\n",
    "Passage 1 has 3 cats.\nPassage 2 is from 2019.\nPassage 3 is best.\n\nFinal ranking:\n",
    "<think>\n[2] > [1]?\n</think>\n\n",
)
BEHIND = ("", "\n\nNote: 1 is the most relevant.", "\n\nPassages [1] and [2] were close.", "\n```")


@pytest.mark.parametrize("form", FORMS)
@given(
    order=st.integers(3, 20).flatmap(lambda count: st.permutations(range(1, count + 1))),
    before=st.sampled_from(BEFORE),
    behind=st.sampled_from(BEHIND),
)
def test_an_order_is_read_in_every_form(
    form: str, order: list[int], before: str, behind: str
) -> None:
    said = before + FORMS[form](order) + behind
    found = completed(read_order(said, len(order)), len(order))
    assert [place + 1 for place in found] == order


ECHO = str(messages("q", [f"thing number {3 * place}" for place in range(5)])[1]["content"])


@pytest.mark.parametrize(
    ("answer", "order"),
    [
        ("[3] > [5] ≈ [1] > [4] & [2]", [3, 5, 1, 4, 2]),
        ("[3] > ([5], [1]) > ([4], [2])", [3, 5, 1, 4, 2]),
        ("[2] > [4] > [0] > [3] > [1]", [3, 5, 1, 4, 2]),
        ("③ > ⑤ > ① > ④ > ②", [3, 5, 1, 4, 2]),
        ("3️⃣ > 5️⃣ > 1️⃣ > 4️⃣ > 2️⃣", [3, 5, 1, 4, 2]),
        ("5. [2]\n4. [4]\n3. [1]\n2. [5]\n1. [3]", [3, 5, 1, 4, 2]),
        ("Relevant: [3], [5]\nSomewhat: [1]\nNot relevant: [4], [2]", [3, 5, 1, 4, 2]),
        ("Not relevant: [4], [2]\nRelevant: [3], [5], [1]", [3, 5, 1, 4, 2]),
        ("Relevant: [3] > [5]\nNot relevant: [1] > [4] > [2]", [3, 5, 1, 4, 2]),
        ("From least to most relevant: [2], [4], [1], [5], [3]", [3, 5, 1, 4, 2]),
        ("Passage 3 is the best, followed by Passage 5, Passage 1 and Passage 4.", [3, 5, 1, 4]),
        ("[1] > [2] > [3] > [4] > [5]. Wait, revised: [3] > [5] > [1] > [4].", [3, 5, 1, 4]),
        ("[3] > [5] > [1] > [4] > [2]\n\nExercise 2: [1], [2].\n[2] > [1]", [3, 5, 1, 4, 2]),
        ("[1] is poor\n[2] is bad\n[3] is best\n\n1. [3] - best\n2. [1] - poor", [3, 1]),
        ("[1], [2] and [3] are given: 3, 5, 1, 4, 2", [3, 5, 1, 4, 2]),
        ("Top 5: 4, 2, 1", [4, 2, 1]),
        ("[3] is relevant; [1], [2], [4] are not.", [3, 1, 2, 4]),
        ("Only passages 3 and 5 are relevant.", [3, 5]),
        ("Passage 3 is the most relevant.", [3]),
        ('[{"rank": 1, "id": 3}, {"rank": 2, "id": 5}, {"rank": 3, "i', [3, 5]),
        ("~~[1] > [2]~~ [3] > [5]", [3, 5]),
        ("[3] > [5] > [1] > [4] > [2] > " * 9_000, [3, 5, 1, 4, 2]),
        (ECHO + "\n\n[4] > [2]", [4, 2]),
        ("[4] > [2] > [5]\n\n" + ECHO, [4, 2, 5]),
        ("<think>" + "[1] > [2] or not. " * 20_000, []),
        ("1. Preheat the oven to 180 degrees.\n2. Mix 3 eggs.\n3. Bake for 5 minutes.", []),
        ("2 + 3 = 5", []),
        ("It is 3:45, 5 pm.", []),
        ("Sorry, I can't rank [3] and [5]: they are harmful.", []),
        ("Call 1-800-555-1234 about the 5 passages", []),
    ],
)
def test_what_a_person_would_read_is_read(answer: str, order: list[int]) -> None:
    assert [place + 1 for place in read_order(answer, 5)] == order


def test_the_question_said_again_puts_nothing_in_another_order() -> None:
    assert completed(read_order(ECHO, 5), 5) == [0, 1, 2, 3, 4]
