"""Protocol Buffers messages of foreign files, declared here with the fields that we need.

`google.protobuf` does the parsing. Its memory can grow to 20 times the bytes of a hostile
message: parse in a child process with a limit (`humanpose.sandbox`).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from humanpose.errors import FormatError, LimitError

_FIELD = re.compile(r"(optional|repeated) (\w+) (\w+) = (\d+)")
_LONGEST_NAME = 1000  # bytes


def messages(**texts: str) -> dict[str, type[Any]]:
    """Classes of messages, by name.

    Args:
        texts: each message's fields as a .proto file declares them, "optional bytes name = 1; ...".
            A type is a scalar of Protocol Buffers or another message of `texts`.
    """
    file = FileDescriptorProto(name="foreign.proto", package="foreign")
    for message, text in texts.items():
        declared = file.message_type.add(name=message)
        for label, kind, name, number in _FIELD.findall(text):
            field = declared.field.add(name=name, number=int(number))
            field.label = FieldDescriptorProto.Label.Value(f"LABEL_{label.upper()}")
            if kind in texts:
                field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".foreign.{kind}"
            else:
                field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"foreign.{name}")) for name in texts}


def decode(message: type[Any], content: bytes, path: str | Path) -> Any:
    """The message in `content`; a FormatError that names `path` if there is none."""
    try:
        return message.FromString(content)
    except DecodeError as error:
        raise FormatError(f"{path}: damaged, cut short or another kind of file") from error


def text(raw: bytes, path: str | Path) -> str:
    """Decode a name. FormatError if it is not UTF-8, LimitError if longer than 1,000 bytes."""
    if len(raw) > _LONGEST_NAME:
        raise LimitError(f"{path}: a name of {len(raw):,} bytes (limit {_LONGEST_NAME:,})")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: damaged: the name {raw[:40]!r} is not UTF-8") from error
