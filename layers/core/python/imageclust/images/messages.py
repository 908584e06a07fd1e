"""What a pool and its workers say to each other over pipes.

A message is a 4-byte little-endian length and that many bytes of JSON, then the raw blocks whose
sizes the JSON lists under ``blocks``. Pixels travel as they are: a pipe moves the megabyte of one
picture in less time than a shared-memory segment takes to set up and tear down.
"""

import io
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from imageclust.images.decode import DecodeLimits
from imageclust.images.fingerprint import Fingerprint
from imageclust.images.process import Processed, ProcessOptions

Message = dict[str, Any]
Block = bytes | memoryview

_LENGTH = struct.Struct("<I")


def send(stream: io.BufferedWriter, message: Message, blocks: Sequence[Block]) -> None:
    """Write one message and its raw blocks."""
    text = json.dumps(message | {"blocks": [len(block) for block in blocks]}).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for block in blocks:
        stream.write(block)
    stream.flush()


def receive(stream: io.BufferedReader) -> tuple[Message, list[bytearray]]:
    """Read one message and its raw blocks.

    Raises:
        EOFError: the other side is gone.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    message: Message = json.loads(_exactly(stream, length))
    return message, [_exactly(stream, size) for size in message["blocks"]]


def _exactly(stream: io.BufferedReader, size: int) -> bytearray:
    buffer = bytearray(size)
    if stream.readinto(buffer) != size:
        raise EOFError
    return buffer


def options_to_json(options: ProcessOptions) -> Message:
    """Options as a JSON-ready dict."""
    return asdict(options)


def options_from_json(stored: Message) -> ProcessOptions:
    """The inverse of :func:`options_to_json`."""
    return ProcessOptions(
        min_side=stored["min_side"],
        thumbnail_side=stored["thumbnail_side"],
        gps=stored["gps"],
        limits=DecodeLimits(**stored["limits"]),
    )


def processed_to_message(done: Processed) -> tuple[Message, list[Block]]:
    """A result as a message and its blocks: pixels, then the thumbnail if there is one."""
    message = {
        "width": done.width,
        "height": done.height,
        "format": done.format,
        "frames": done.frames,
        "notes": done.notes,
        "size_bytes": done.size_bytes,
        "fingerprint": done.fingerprint.to_json(),
        "shape": done.pixels.shape,
    }
    blocks: list[Block] = [done.pixels.data.cast("B")]
    return message, blocks if done.thumbnail is None else [*blocks, done.thumbnail]


def processed_from_message(message: Message, blocks: list[bytearray]) -> Processed:
    """The inverse of :func:`processed_to_message`; the pixels share the block's memory."""
    return Processed(
        pixels=np.frombuffer(blocks[0], np.uint8).reshape(message["shape"]),
        width=message["width"],
        height=message["height"],
        format=message["format"],
        frames=message["frames"],
        notes=tuple(message["notes"]),
        size_bytes=message["size_bytes"],
        fingerprint=Fingerprint.from_json(message["fingerprint"]),
        thumbnail=bytes(blocks[1]) if len(blocks) > 1 else None,
    )
