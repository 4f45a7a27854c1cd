"""Small tokenizers and backends, made on the spot, that behave like the real architectures."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from rerank_sidecar.backends.base import BackendInfo, TokenSequence
from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.errors import BackendFailed
from rerank_sidecar.rerankers.base import IndexedDocuments, Outcome, Reranker, ScoreOptions
from rerank_sidecar.types import Document

WORDS = [
    *("what", "is", "the", "capital", "of", "france", "paris", "city", "a", "river", "bread"),
    *("sea", "über", "naïve", "東", "京", "猫", "😀"),
]
DIMENSION = 16

Array = npt.NDArray[np.float32]


def bert_tokenizer() -> Tokenizer:
    """WordPiece, lower case; a pair has type ids 0 and 1."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_lowered_words(), *string.ascii_lowercase]
    vocabulary += [f"##{letter}" for letter in string.ascii_lowercase]
    identifiers = {token: position for position, token in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(vocab=identifiers, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def electra_tokenizer() -> Tokenizer:
    """The same with the post-processor that older files name."""
    tokenizer = bert_tokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def xlm_roberta_tokenizer() -> Tokenizer:
    """Unigram; two separators in the middle of a pair, all type ids 0."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -4.0) for word in WORDS]
    pieces += [(letter, -6.0) for letter in string.ascii_letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


def byte_level_tokenizer() -> Tokenizer:
    """Byte-level BPE, as of RoBERTa and ModernBERT: a letter may be several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = ["<s>", "<pad>", "</s>", *alphabet]
    identifiers = {token: position for position, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=identifiers, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


TOKENIZERS = {
    "bert": bert_tokenizer,
    "electra": electra_tokenizer,
    "xlm-roberta": xlm_roberta_tokenizer,
    "byte-level": byte_level_tokenizer,
}


def _lowered_words() -> list[str]:
    normalizer = normalizers.BertNormalizer(lowercase=True)
    return [normalizer.normalize_str(word).strip() for word in WORDS]


class ToyBackend:
    """Keeps what it ran; a sequence that holds `bad_token` fails, alone or with its batch."""

    def __init__(self, bad_token: int | None = None) -> None:
        self.ran: list[TokenSequence] = []
        self._bad_token = bad_token

    @property
    def info(self) -> BackendInfo:
        return BackendInfo("toy", "1", "cpu", "float32", 2)

    def run(self, batch: Sequence[TokenSequence]) -> list[Array]:
        self.ran.extend(batch)
        if any(self._bad_token in sequence.token_ids for sequence in batch):
            raise BackendFailed("the toy failed")
        return [self.compute(sequence) for sequence in batch]

    def compute(self, sequence: TokenSequence) -> Array:
        raise NotImplementedError

    def warm_up(self) -> None: ...

    def close(self) -> None: ...


class ToyEncoder(ToyBackend):
    """Hidden states: a vector for each token, bent a little by the sequence around it."""

    def __init__(self, bad_token: int | None = None, broken_token: int | None = None) -> None:
        super().__init__(bad_token)
        self._broken_token = broken_token
        self._table = np.random.default_rng(7).normal(size=(512, DIMENSION)).astype(np.float32)

    def compute(self, sequence: TokenSequence) -> Array:
        vectors: Array = self._table[sequence.token_ids]
        hidden: Array = vectors + np.float32(0.1) * vectors.mean(axis=0)
        if self._broken_token is not None:
            hidden[sequence.token_ids == self._broken_token] = np.nan
        return hidden


class ToyClassifier(ToyBackend):
    """A logit: how much of what comes after the first separator was there before it, in tenths."""

    def __init__(
        self, separator: int, bad_token: int | None = None, broken_token: int | None = None
    ) -> None:
        super().__init__(bad_token)
        self._separator = separator
        self._broken_token = broken_token

    def compute(self, sequence: TokenSequence) -> Array:
        if self._broken_token in sequence.token_ids:
            return np.array([np.inf], dtype=np.float32)
        split = int(np.argmax(sequence.token_ids == self._separator))
        before, after = sequence.token_ids[1:split], sequence.token_ids[split + 1 : -1]
        return np.array([10 * np.isin(after, before).mean() - 5 if len(after) else -5], np.float32)


@asynccontextmanager
async def running(backend: ToyBackend, max_batch_size: int = 8) -> AsyncIterator[Scheduler]:
    """Run a scheduler over a toy."""
    limits = BatchLimits(max_batch_tokens=4096, max_batch_size=max_batch_size, max_wait_s=60.0)
    scheduler = Scheduler(backend, limits, workers=2)
    scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.close()


async def arriving(*groups: Sequence[str]) -> AsyncIterator[IndexedDocuments]:
    """Let texts arrive in groups, numbered on."""
    first = 0
    for group in groups:
        yield [(first + offset, Document(text)) for offset, text in enumerate(group)]
        first += len(group)


async def outcomes_of(
    reranker: Reranker,
    query: str,
    *groups: Sequence[str],
    options: ScoreOptions | None = None,
) -> list[Outcome]:
    """Score texts that arrive in groups; give the outcomes in the order of the texts."""
    found: dict[int, Outcome] = {}
    scoring = reranker.score(query, arriving(*groups), options or ScoreOptions())
    async with aclosing(scoring) as outcomes:
        async for index, outcome in outcomes:
            assert index not in found
            found[index] = outcome
    assert sorted(found) == list(range(sum(map(len, groups))))
    return [found[index] for index in sorted(found)]
