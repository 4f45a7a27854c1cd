"""What a language model is asked about a query and a document, and which answer means yes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rerank_sidecar.errors import ModelNotServable

_QUERY, _DOCUMENT, _INSTRUCTION = "{query}", "{document}", "{instruction}"


@dataclass(frozen=True, slots=True)
class PairPrompt:
    """A prompt around a query and, behind it, a document: the text before, between and after."""

    before: str
    between: str
    after: str

    @classmethod
    def from_template(cls, template: str, instruction: str) -> PairPrompt:
        """Read a text with `{query}`, then `{document}`, and perhaps `{instruction}`.

        Raises:
            ModelNotServable: one of the two is missing or there twice, or they are in another
                order; a query has to come first so that its part is read once for all documents.
        """
        before, query, rest = template.partition(_QUERY)
        between, document, after = rest.partition(_DOCUMENT)
        if not (query and document) or template.count(_QUERY) + template.count(_DOCUMENT) != 2:
            raise ModelNotServable(
                "the template must have {query} once and, behind it, {document} once"
            )
        parts = (part.replace(_INSTRUCTION, instruction) for part in (before, between, after))
        return cls(*parts)

    def render(self, query: str, document: str) -> str:
        """Give the whole text."""
        return f"{self.before}{query}{self.between}{document}{self.after}"


@dataclass(frozen=True, slots=True)
class KnownPrompt:
    """How a reranker wants to be asked, as its model card says.

    `false_token` is None where the logit of `true_token` alone is the score. `is_probability` is
    whether the card applies a sigmoid. `max_tokens` is what the card reads at most.
    """

    template: str
    instruction: str
    true_token: str
    false_token: str | None
    is_probability: bool
    max_tokens: int


KNOWN_PROMPTS: Mapping[str, KnownPrompt] = MappingProxyType(
    {
        # https://huggingface.co/Qwen/Qwen3-Reranker-0.6B
        "qwen3": KnownPrompt(
            template="<|im_start|>system\nJudge whether the Document meets the requirements based "
            "on the Query and the Instruct provided. Note that the answer can only be "
            '"yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: {instruction}\n'
            "<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n"
            "<think>\n\n</think>\n\n",
            instruction="Given a web search query, retrieve relevant passages that answer the "
            "query",
            true_token="yes",  # noqa: S106
            false_token="no",  # noqa: S106
            is_probability=True,
            max_tokens=8192,
        ),
        # https://github.com/mixedbread-ai/mxbai-rerank, mxbai_rerank_v2.py
        "qwen2": KnownPrompt(
            template="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a "
            "helpful assistant.<|im_end|>\n<|im_start|>user\nquery: {query}\ndocument: {document}\n"
            "{instruction}\nRelevance:<|im_end|>\n<|im_start|>assistant\n",
            instruction="You are a search relevance expert who evaluates how well documents match "
            "search queries. For each query-document pair, carefully analyze the semantic "
            "relationship between them, then provide your binary relevance judgment (0 for not "
            "relevant, 1 for relevant).",
            true_token="1",  # noqa: S106
            false_token="0",  # noqa: S106
            is_probability=False,
            max_tokens=8192,
        ),
        # https://huggingface.co/BAAI/bge-reranker-v2-gemma
        "gemma": KnownPrompt(
            template="<bos>A: {query}\nB: {document}\n{instruction}",
            instruction="Given a query A and a passage B, determine whether the passage contains "
            "an answer to the query by providing a prediction of either 'Yes' or 'No'.",
            true_token="Yes",  # noqa: S106
            false_token=None,
            is_probability=False,
            max_tokens=1024,
        ),
    }
)
"""By transformers' model type: of each there is one well-known reranker without files that say."""
