"""The pool in which other people's messages live, filled from the checked-in descriptors.

`make proto` writes descriptors.bin and, for type checkers, the stubs beside the modules.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

DESCRIPTORS = FileDescriptorSet.FromString(
    files("rerank_sidecar.third_party").joinpath("descriptors.bin").read_bytes()
)
"""Every file of proto/third_party."""

_POOL = DescriptorPool()
for _each in DESCRIPTORS.file:
    _POOL.Add(_each)


def contents_of(file_name: str) -> dict[str, Any]:
    """Give what protoc would have put into a file's module: messages, enums and their values.

    Raises:
        KeyError: there is no such file.
    """
    file = _POOL.FindFileByName(file_name)
    found: dict[str, Any] = {"DESCRIPTOR": file}
    for name, message in file.message_types_by_name.items():
        found[name] = message_factory.GetMessageClass(message)
    for name, enum in file.enum_types_by_name.items():
        found[name] = EnumTypeWrapper(enum)
        found.update((value.name, value.number) for value in enum.values)
    return found
