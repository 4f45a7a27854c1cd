"""Calling a method of a described service: the client's side of `handlers`."""

from __future__ import annotations

from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor


def unary_call(channel: Any, service: ServiceDescriptor, name: str) -> Any:  # noqa: ANN401
    """Give what calls a method that streams in neither direction, on either kind of channel."""
    method = service.methods_by_name[name]
    return channel.unary_unary(
        f"/{service.full_name}/{name}",
        request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
