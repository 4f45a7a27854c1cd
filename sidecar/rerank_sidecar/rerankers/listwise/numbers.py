"""The numbers in what a chat model said, and what each of them seems to stand for."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

# Nothing in these repeats without a bound next to what may match the same: no answer, however odd,
# takes more than linear time.
_NOUNS = (
    r"passages?|psg|documents?|docs?|texts?|items?|results?|candidates?|snippets?|paragraphs?"
    r"|identifiers?|ids?|numbers?|nos?|passagen?|dokumente?|abschnitte?|textstellen?"
    r"|pasajes?|documentos?|textos?|passagg[io]|documenti|trechos?"
    r"|отрыв(?:ок|ки)|документы?|пассажи?|текст"
)
_CJK_NOUNS = (
    "段落|文档|文檔|文章|文本|文書|第|段|篇|号|番|パッセージ|ドキュメント|문서|구절|단락|번"
)
NOUN = rf"(?:{_NOUNS}|{_CJK_NOUNS})"
_PLACE = r"rank|place|position|rang|platz|排名|순위"
_SCORE = (
    r"scores?|scored|relevance|relevancy|rating|rated|confidence|probability|similarity"
    r"|relevanz|puntuación|得分|分数|スコア|점수"
)
_JOINS = (
    r"and|then|over|followed by|finally|lastly|next|und|dann|et|puis|enfin|y|luego|e|и|затем|그리고"
)
_CJK_JOINS = "以及|其次|然后|接着|最后|和|与|及|是|と|および|次に|및"

_THOUGHT = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad)"
_END_OF_THOUGHT = re.compile(
    rf"</{_THOUGHT}>|\[/{_THOUGHT}\]|◁/think▷|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
_START_OF_THOUGHT = re.compile(
    rf"<{_THOUGHT}>|\[{_THOUGHT}\]|◁think▷|<\|channel\|>analysis", re.IGNORECASE
)

_MOST_CHARACTERS = 40_000
"""No order takes more, thoughts apart."""
_CIRCLE = 200

_SIGNS = {
    **dict.fromkeys("≻≽≥≫⩾⪰›→➔➜⇒⟶⟹▶►➡⮕", ">"),
    **dict.fromkeys("≺≼≤≪⩽⪯‹←⇐⟵⬅", "<"),
    **dict.fromkeys("≈≃≅∼", "="),
    **dict.fromkeys("【〔", "["),
    **dict.fromkeys("】〕", "]"),
    **dict.fromkeys("、،", ","),
    "。": ".",
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\ufe0e\ufe0f\u20e3"),  # seen by nobody
}
_PLAIN = str.maketrans(_SIGNS)
_REPLACED = (
    (re.compile(r"\\(?:succ|gt|ge|rightarrow|Rightarrow|longrightarrow|to)(?:eq|sim)?q?\b"), ">"),
    (re.compile(r"\\(?:prec|lt|le|leftarrow|Leftarrow)(?:eq|sim)?q?\b"), "<"),
    (re.compile(r"\\n(?![a-z])"), "\n"),
    (re.compile(r"\\[a-zA-Z]{2,20}|~~[^~\n]{1,400}~~"), " "),
)
_CELL_TAG = re.compile(r"</?t[dh]>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][\w:-]{0,20}([^<>\n]{0,200})>")
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_BESIDE_CJK = re.compile(rf"(?<=[{_CJK}])(?=\d)|(?<=\d)(?=[{_CJK}])")


def plain(answer: str) -> str:
    """Write an answer's signs as in English: models that think in Chinese answer `【２】→【１】`.

    Thoughts are cut off, tags and LaTeX give way to what they stand for.
    """
    said = _some(_without_thoughts(html.unescape(html.unescape(answer))))
    said = unicodedata.normalize("NFKC", said.translate(_PLAIN)).translate(_PLAIN)
    for written, meaning in _REPLACED:
        said = written.sub(meaning, said)
    said = _TAG.sub(r"\n\1\n", _CELL_TAG.sub("|", said))
    return _BESIDE_CJK.sub(" ", said)


def _without_thoughts(answer: str) -> str:
    """Cut off what a reasoning model said to itself; where that has no end, all of it is."""
    answer = _END_OF_THOUGHT.split(answer)[-1]
    return _START_OF_THOUGHT.split(answer, maxsplit=1)[0]


def _some(said: str) -> str:
    """Give as much as is read: the end, which counts, but of a model that went round in circles."""
    is_circle = said[-_CIRCLE:] in said[-_MOST_CHARACTERS:-_CIRCLE]
    return said[:_MOST_CHARACTERS] if is_circle else said[-_MOST_CHARACTERS:]


class Kind(Enum):
    """What a number says it is."""

    NAMED = "passage 3"
    BRACKETED = "[3]"
    BARE = "3"
    PLACE = "rank 3, 3rd"
    SCORE = "0.3, 3/5, score 3"

    @property
    def is_identifier(self) -> bool:
        """Whether it says that it names a document."""
        return self in {Kind.NAMED, Kind.BRACKETED}


@dataclass(frozen=True, slots=True)
class Number:
    """A number, and the characters [start, end) that it takes with what belongs to it."""

    value: float
    kind: Kind
    start: int
    end: int


_NUMBER = re.compile(
    rf"(?<![^\W_])(?<!\d\.)(?<![\[(]-)(?P<noun>{NOUN}[_-]?|[PD])?"
    r"(?P<value>\d{1,30}(?:\.\d{1,9})?)(?P<unit> ?%|/\d{1,3}|st|nd|rd|th| ?[位名위])?(?![^\W_])",
    re.IGNORECASE,
)
_PLACE_UNITS = frozenset({"st", "nd", "rd", "th", "位", "名", "위"})
_LABEL = re.compile(
    rf"(?:\b(?P<noun>{NOUN})[ \t\"'`*_:#=.\[(<-]{{0,5}}"
    rf"|\b(?P<place>{_PLACE})[ \t_#=-]{{0,3}}"
    rf"|\b(?P<score>{_SCORE})[ \t\"'`*_:=(-]{{0,4}}"
    r"|\b(?P<amount>top|best|first|last|all|these|those|the|of|to|from|query|exercise) )\Z",
    re.IGNORECASE,
)
_MOST_OF_A_LABEL = 20
_OPEN = re.compile(rf"\[\s{{0,4}}(?:{NOUN}[\s:#._]{{0,3}})?\Z", re.IGNORECASE)
_SHUT = re.compile(r"\s{0,4}\]")
_AMOUNT = re.compile(r"[ *_]{1,4}(?:passages|documents|texts|items|results|identifiers)\b", re.I)
_REMARK = re.compile(r"[\]*_`\"']{0,4} ?\([^()\n]{0,60}\)")


def numbers_of(said: str) -> Iterator[Number]:
    """Find the numbers, but for those that say how many: "these 3 passages", "the top 5"."""
    end = 0
    for found in _NUMBER.finditer(said):
        kind = _kind(said, found) if found.start() >= end else None
        if kind is not None:
            remark = _REMARK.match(said, found.end())
            end = remark.end() if remark else found.end()
            yield Number(float(found["value"]), kind, found.start(), end)


def _kind(said: str, found: re.Match[str]) -> Kind | None:
    before = said[max(0, found.start() - _MOST_OF_A_LABEL) : found.start()]
    label = _LABEL.search(before)
    unit = (found["unit"] or "").strip().lower()
    if unit in _PLACE_UNITS:
        return Kind.PLACE
    is_whole = "." not in found["value"]
    if is_whole and (found["noun"] or (label and label["noun"])):
        return Kind.NAMED
    if is_whole and _OPEN.search(before) and _SHUT.match(said, found.end()):
        return Kind.BRACKETED
    if (label and label["amount"]) or _AMOUNT.match(said, found.end()):
        return None
    if not is_whole or "%" in unit or "/" in unit or (label and label["score"]):
        return Kind.SCORE
    return Kind.PLACE if label and label["place"] else Kind.BARE


_BETWEEN = re.compile(
    rf"(?:[^\w+]|_|{_CJK_NOUNS}|{_CJK_JOINS}"
    rf"|(?<![^\W_])(?:{_NOUNS}|{_PLACE}|{_SCORE}|{_JOINS})(?![^\W_]))*",
    re.IGNORECASE,
)
_MOST_BETWEEN = 60


def is_between(said: str, start: int, end: int) -> bool:
    """Tell whether nothing but signs, and words that name, rank or join, stands there."""
    return end - start <= _MOST_BETWEEN and _BETWEEN.fullmatch(said, start, end) is not None
