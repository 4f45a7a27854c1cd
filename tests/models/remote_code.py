"""A model that is run by its own Python code; copied beside its weights by a test."""

from __future__ import annotations

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class BagConfig(PretrainedConfig):  # type: ignore[misc]
    model_type = "bag-of-tokens"


class BagForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    config_class = BagConfig

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.values = torch.nn.Embedding(config.vocab_size, 1)
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> SequenceClassifierOutput:
        weights = attention_mask.unsqueeze(-1).float()
        return SequenceClassifierOutput(logits=(self.values(input_ids) * weights).sum(dim=1))
