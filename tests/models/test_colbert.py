"""ColBERT checkpoints of every form score as sentence-transformers scores them, within rounding.

Our score is the mean over the query's vectors where the library's is their sum.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.score_kinds import ScoreKind
from tests.models.test_encoders import DOCUMENTS, QUERY, scores_of, served, settings_for
from tests.models.tiny_encoders import (
    PUNCTUATION,
    save_multi_vector,
    save_pylate,
    save_stanford,
)

TOLERANCE = 0.01
"""What is lost by keeping a document's vectors in 8 bits."""

LONG_QUERY = "how many people live in the city of the orange zebra, where is the window? " * 3
MARKERS = {"query": "what is: ", "document": "the city of "}


def library(folder: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)


def expected_scores(folder: Path, query: str) -> npt.NDArray[np.float64]:
    from sentence_transformers.util.similarity import maxsim

    model = library(folder)
    [of_query], of_documents = (
        model.encode_query([query], normalize_embeddings=True),
        model.encode_document(list(DOCUMENTS), normalize_embeddings=True),
    )
    sums: npt.NDArray[np.float64] = maxsim([of_query], of_documents)[0].numpy()
    return sums / len(of_query)


FIXED = {"strategy": "fixed", "length": 14}
FORMS: dict[str, Callable[[Path], Path]] = {
    "sentence-transformers": save_multi_vector,
    "not normalised": lambda folder: save_multi_vector(folder, normalized=False),
    "text prompts": lambda folder: save_multi_vector(folder, prompts=MARKERS, lengths=(20, 30)),
    "fixed": lambda folder: save_multi_vector(folder, expansion=FIXED, skiplist=PUNCTUATION),
    "attended": lambda folder: save_multi_vector(
        folder, expansion={**FIXED, "attend": True}, prompts=MARKERS
    ),
    "at least": lambda folder: save_multi_vector(
        folder, expansion={"strategy": "min", "length": 14, "token": "castle"}, lengths=(25, None)
    ),
    "unigram": lambda folder: save_multi_vector(
        folder, "xlm-roberta", expansion=FIXED, prompts=MARKERS
    ),
    "byte level": lambda folder: save_multi_vector(
        folder, "modernbert", expansion={**FIXED, "attend": True}, prompts=MARKERS
    ),
    "pylate": lambda folder: save_pylate(folder, model_type="ColBERT"),
    "older pylate": save_pylate,
    "pylate attended": lambda folder: save_pylate(folder, attend_to_expansion_tokens=True),
    "pylate without expansion": lambda folder: save_pylate(folder, do_query_expansion=False),
    "pylate modernbert": lambda folder: save_pylate(folder, "modernbert", skiplist_words=["."]),
    "stanford": save_stanford,
    "stanford attended": lambda folder: save_stanford(
        folder, attend_to_mask_tokens=True, mask_punctuation=False
    ),
}


@pytest.mark.parametrize("form", FORMS)
async def test_scores_equal_sentence_transformers(tmp_path: Path, form: str) -> None:
    folder = FORMS[form](tmp_path / "model")
    for query in (QUERY, LONG_QUERY, ""):
        result = await served(settings_for(folder), query)
        expected = expected_scores(folder, query)
        np.testing.assert_allclose(scores_of(result), expected, atol=TOLERANCE, rtol=0)
        assert np.ptp(expected) > 0.05, "all pairs score alike: the comparison would prove nothing"
        assert result.summary.score_kind is ScoreKind.MAXSIM
