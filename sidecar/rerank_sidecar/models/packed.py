"""Runs a transformers encoder without padding: sequences one behind the other in a single row.

transformers lets others compute attention (its `AttentionInterface`); everything else in an encoder
works on single tokens and does not care whose they are. On a GPU attention is torch's own flash
attention for sequences of several lengths (`torch.nn.attention.varlen`), on a CPU one fused
attention for each sequence. A classifier reads the first token of each sequence, which the last
layer is made to give in place of the row; where the layer is of a known kind it computes no other
token (see models/first_token.py). Whether a model bears all this is seen from its outputs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch.nn.functional import scaled_dot_product_attention

from rerank_sidecar.models.first_token import is_known_layer

HubModel: TypeAlias = Any
"""A `transformers.PreTrainedModel`."""

Undo = Callable[[], None]

_NAME = "rerank_sidecar_packed"

_UNLIMITED = -1


@dataclass(frozen=True, slots=True, eq=False)
class PackedLayout:
    """Where the sequences of a row begin and end.

    `bounds` is known to the host, `offsets` the same as int32 [batch + 1] on the device; `longest`
    is the length of the longest sequence. All tokens of a sequence attend to each other.
    """

    bounds: tuple[int, ...]
    offsets: torch.Tensor
    longest: int


class _Current(threading.local):
    layout: PackedLayout


# The layout does not pass through every model's arguments, and each worker has its own thread.
_current = _Current()


@contextmanager
def laid_out(layout: PackedLayout) -> Iterator[None]:
    """Let the models that this thread runs find their row laid out so."""
    _current.layout = layout
    try:
        yield
    finally:
        del _current.layout


def can_pack_on(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether there is a kernel: flash attention has none for float32 or before Ampere."""
    if device.type == "cpu":
        return True
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: F401
    except ImportError:  # torch before 2.10, whose own has neither scale nor window yet
        return False
    is_half = dtype in {torch.bfloat16, torch.float16}
    return is_half and torch.cuda.get_device_capability(device) >= (8, 0)


def pack(model: HubModel, *, first_tokens: bool) -> Undo | None:
    """Make an encoder take packed rows, None if it is not built in a way that could.

    With `first_tokens` its last layer gives [batch, 1, dimension], one token of each sequence, as
    the classifiers behind it read; else [1, tokens, dimension]. The model then runs within
    `laid_out` only, until what is given back is called.
    """
    layers = _layers(model)
    if not layers or not getattr(model, "_supports_attention_backend", False):
        return None
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attention)
    usual = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    stop = _give_first_tokens(layers[-1]) if first_tokens else _nothing

    def undo() -> None:
        stop()
        model.set_attn_implementation(usual)

    return undo


def position_offset(model: HubModel) -> int:
    """Give the number of the first position: RoBERTa and its kind count from padding_idx + 1."""
    offset, _ = _position_table(model)
    return offset


def usable_positions(model: HubModel) -> int | None:
    """Count the tokens that a model has learned positions for, None if it has no table of them."""
    offset, size = _position_table(model)
    return None if size is None else size - offset


def _position_table(model: HubModel) -> tuple[int, int | None]:
    for module in model.modules():
        padding = getattr(module, "padding_idx", None)
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding):
            offset = padding + 1 if isinstance(padding, int) else 0
            return offset, table.num_embeddings
    return 0, None


def _layers(model: HubModel) -> Any:  # noqa: ANN401
    base = getattr(model, model.base_model_prefix, model)
    encoder = getattr(base, "encoder", base)
    return getattr(encoder, "layer", None) or getattr(encoder, "layers", None)


def _nothing() -> None:
    pass


def _give_first_tokens(layer: torch.nn.Module) -> Undo:
    if is_known_layer(layer):
        # As an attribute of the instance it comes before the method of the class.
        setattr(layer, "forward", _FirstTokensOnly(layer))  # noqa: B010

        def undo() -> None:
            del layer.forward

        return undo
    return layer.register_forward_hook(_take_first_tokens).remove


def _take_first_tokens(_layer: object, _inputs: object, hidden: torch.Tensor) -> torch.Tensor:
    return _first_tokens(hidden)


def _first_tokens(hidden: torch.Tensor) -> torch.Tensor:
    return hidden[0].index_select(0, _current.layout.offsets[:-1]).unsqueeze(1)


class _FirstTokensOnly:
    """The forward pass of a layer like BERT's for the first token of each sequence alone."""

    def __init__(self, layer: Any) -> None:  # noqa: ANN401
        self._layer = layer

    def __call__(self, hidden: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        attention = self._layer.attention
        own = attention.self
        first = _first_tokens(hidden)
        context = _attend(
            _heads(own.query(first[:, 0]), own.attention_head_size),
            _heads(own.key(hidden[0]), own.attention_head_size),
            _heads(own.value(hidden[0]), own.attention_head_size),
            scale=own.scaling,
            one_query=True,
        )
        output = attention.output(context.flatten(1).unsqueeze(1), first)
        result: torch.Tensor = self._layer.feed_forward_chunk(output)
        return result


def _heads(states: torch.Tensor, size: int) -> torch.Tensor:
    return states.view(len(states), -1, size)


def _attention(
    _module: object,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: object,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend within each sequence; [1, heads, tokens, size] in, [1, tokens, heads, size] out."""
    query, key, value = (each[0].transpose(0, 1) for each in (query, key, value))
    # transformers counts the token itself.
    window = _UNLIMITED if sliding_window is None else sliding_window - 1
    return _attend(query, key, value, scale=scaling, window=window).unsqueeze(0), None


def _attend(  # noqa: PLR0913 - each is a fact of its own
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scale: float | None,
    window: int = _UNLIMITED,
    one_query: bool = False,
) -> torch.Tensor:
    """Attend within each sequence, all [tokens, heads, size]; `query` may have one token of each.

    `window` is how far to either side a token looks.
    """
    layout = _current.layout
    if query.is_cuda:
        return _attend_on_gpu(query, key, value, layout, scale, window, one_query)
    rows = range(len(layout.bounds)) if one_query else layout.bounds
    parts = [
        _attend_one(query[begin:stop], key[start:end], value[start:end], scale, window)
        for (begin, stop), (start, end) in zip(
            pairwise(rows), pairwise(layout.bounds), strict=False
        )
    ]
    return torch.cat(parts)


def _attend_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float | None,
    window: int,
) -> torch.Tensor:
    query, key, value = (each.transpose(0, 1).unsqueeze(0) for each in (query, key, value))
    mask = None
    queries, keys = query.shape[2], key.shape[2]
    if _UNLIMITED < window < queries - 1:
        places = torch.arange(queries, device=key.device)
        mask = (places[:, None] - places[:keys]).abs() <= window
    attended = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return attended[0].transpose(0, 1)


def _attend_on_gpu(  # noqa: PLR0913, PLR0917
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: PackedLayout,
    scale: float | None,
    window: int,
    one_query: bool,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    offsets, most = layout.offsets, layout.longest
    query_offsets, most_queries = offsets, most
    if one_query:
        query_offsets = torch.arange(len(offsets), dtype=torch.int32, device=offsets.device)
        most_queries = 1
    attended = varlen_attn(
        query,
        key,
        value,
        query_offsets,
        offsets,
        most_queries,
        most,
        scale=scale,
        window_size=(window, window),
    )
    assert isinstance(attended, torch.Tensor)  # noqa: S101 - without return_aux
    return attended
