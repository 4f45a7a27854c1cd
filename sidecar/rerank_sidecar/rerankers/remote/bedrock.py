"""AWS Bedrock's Rerank, by which Cohere's and Amazon's models answer.

Only credentials, addresses and signatures come from botocore: its own client blocks a thread for
each call, which nobody could cancel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rerank_sidecar.errors import InvalidSetting, MissingExtra, RemoteFailed
from rerank_sidecar.rerankers.remote.answers import indexed, rows
from rerank_sidecar.rerankers.remote.base import Access, CallFailed, Question, Target, Traits
from rerank_sidecar.rerankers.remote.http import HttpWire
from rerank_sidecar.rerankers.remote.options import BedrockOptions
from rerank_sidecar.score_kinds import ScoreKind

_SERVICE = "bedrock-agent-runtime"
_SIGNED_AS = "bedrock"
_MOST_CHARACTERS = 32_000


class BedrockWire(HttpWire):
    """`POST /rerank`, signed (AWS Signature Version 4); scores are in [0, 1].

    Texts have from 1 to 32,000 characters. `target.model` is the id of a foundation model, or an
    ARN.

    Raises:
        MissingExtra: botocore is not installed.
        InvalidSetting: nobody says which region is meant.
    """

    default_path = "/rerank"
    usual_kind = ScoreKind.PROBABILITY
    max_documents = 100

    def __init__(self, target: Target, options: BedrockOptions) -> None:
        try:
            import botocore.session
        except ImportError as error:
            raise MissingExtra("bedrock", "asking AWS Bedrock") from error
        super().__init__(target, options)
        self._session = botocore.session.Session()
        self._region = options.region or self._session.get_config_variable("region")
        if self._region is None:
            raise InvalidSetting("family_options.region: AWS has no region set; name one")
        url, self._partition = self._found()
        self.target = replace(target, url=target.url or url)

    @property
    def traits(self) -> Traits:
        """Tell what is known of the service without asking it."""
        return replace(super().traits, takes_empty=False, max_characters=_MOST_CHARACTERS)

    def headers(self, access: Access) -> dict[str, str]:
        """Show no key: requests are signed.

        Raises:
            InvalidSetting: there is one.
        """
        if access.key is not None:
            raise InvalidSetting("bedrock takes AWS credentials, from where AWS looks, and no key")
        return {}

    def body(self, question: Question) -> dict[str, Any]:
        """Write a question; fewer results than documents would be returned unless told."""
        return {
            "queries": [{"type": "TEXT", "textQuery": {"text": question.query}}],
            "sources": [_inline(text) for text in question.texts],
            "rerankingConfiguration": {
                "type": "BEDROCK_RERANKING_MODEL",
                "bedrockRerankingConfiguration": {
                    "numberOfResults": len(question.texts),
                    "modelConfiguration": {"modelArn": self._model_arn()},
                },
            },
        }

    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result."""
        return indexed(rows(answer, "results"), "relevanceScore")

    async def sign(self, url: str, content: bytes) -> Mapping[str, str]:
        """Sign a request in a thread, because new credentials may have to be fetched.

        Raises:
            CallFailed: there are no credentials.
        """
        return await asyncio.to_thread(self._sign, url, content)

    def _sign(self, url: str, content: bytes) -> Mapping[str, str]:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        try:
            credentials = self._session.get_credentials()
            if credentials is None:
                raise CallFailed(RemoteFailed("there are no AWS credentials"))
            frozen = credentials.get_frozen_credentials()
        except BotoCoreError as error:
            problem = f"AWS credentials cannot be had ({type(error).__name__})"
            raise CallFailed(RemoteFailed(problem)) from error
        headers = {"Content-Type": "application/json"}
        request = AWSRequest(method="POST", url=url, data=content, headers=headers)
        SigV4Auth(frozen, _SIGNED_AS, self._region).add_auth(request)
        return dict(request.headers.items())

    def _found(self) -> tuple[str, str]:
        """Give the service's address in the region, and the partition that this is in."""
        client = self._session.create_client(_SERVICE, region_name=self._region)
        try:
            return client.meta.endpoint_url, client.meta.partition
        finally:
            client.close()

    def _model_arn(self) -> str:
        model = self.target.model
        if model.startswith("arn:"):
            return model
        return f"arn:{self._partition}:bedrock:{self._region}::foundation-model/{model}"


def _inline(text: str) -> dict[str, Any]:
    document = {"type": "TEXT", "textDocument": {"text": text}}
    return {"type": "INLINE", "inlineDocumentSource": document}
