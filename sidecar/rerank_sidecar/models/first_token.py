"""The last layer of a classifier that reads the first token alone, computed for that token alone.

Most cross-encoders take their logit from the first token's last hidden state. The other tokens' are
then computed for nothing, though their keys and values in that layer are not: of six layers of
BERT, that is an eighth of all work. Nothing is approximated: what is left out is never read.
"""

from __future__ import annotations

from typing import Any, TypeAlias

Torch: TypeAlias = Any
TorchModel: TypeAlias = Any
Layer: TypeAlias = Any
Hidden: TypeAlias = Any


def compute_first_token_only(torch: Torch, model: TorchModel) -> bool:
    """Make the last layer give the first token's hidden state alone, if it is of a known kind.

    Returns whether it is. Known are the layers of BERT and of the models built like it (ELECTRA,
    RoBERTa, XLM-RoBERTa) in transformers. Whether the classifier reads the first token alone has to
    be seen from its logits.
    """
    encoder = getattr(getattr(model, model.base_model_prefix, None), "encoder", None)
    layers = getattr(encoder, "layer", None)
    if not layers or not is_known_layer(layers[-1]):
        return False
    layers[-1] = _first_token_layer(torch, layers[-1])
    return True


def is_known_layer(layer: Layer) -> bool:
    """Tell whether a layer is BERT's or of a model that is built like it."""
    attention = getattr(layer, "attention", None)
    own = getattr(attention, "self", None)
    has_parts = all(hasattr(own, name) for name in ("query", "key", "value", "scaling"))
    return (
        has_parts
        and type(layer).__module__.startswith("transformers.models.")
        and hasattr(attention, "output")
        and hasattr(layer, "feed_forward_chunk")
        and not getattr(layer, "is_decoder", False)
    )


def _first_token_layer(torch: Torch, layer: Layer) -> Layer:
    class FirstTokenLayer(torch.nn.Module):  # type: ignore[misc]
        """A layer in place of `layer`, with its weights: hidden states in, the first one out."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, hidden: Hidden, mask: Hidden = None, *_: object, **__: object) -> Hidden:
            attention = layer.attention
            first = hidden[:, :1]
            context = _attend(torch, attention.self, first, hidden, mask)
            return layer.feed_forward_chunk(attention.output(context, first))

    return FirstTokenLayer()


def _attend(torch: Torch, attention: Layer, first: Hidden, hidden: Hidden, mask: Hidden) -> Hidden:
    def heads(states: Hidden) -> Hidden:
        shape = (*states.shape[:-1], -1, attention.attention_head_size)
        return states.view(*shape).transpose(1, 2)

    query = heads(attention.query(first))
    key, value = heads(attention.key(hidden)), heads(attention.value(hidden))
    logits = torch.matmul(query, key.transpose(2, 3)) * attention.scaling
    if mask is not None:
        logits = logits + mask[:, :, :1]
    context = torch.matmul(torch.softmax(logits, dim=-1), value).transpose(1, 2)
    return context.reshape(*first.shape[:-1], -1)
