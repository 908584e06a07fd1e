"""Cursors of ``Table.query``: the last key shown, opaque to clients, the same on both sides."""

import base64
import binascii
import json

from imageclust.errors import InvalidInput


def encode_cursor(pk: str, sk: str) -> str:
    """The cursor that continues after the item (pk, sk)."""
    return base64.urlsafe_b64encode(json.dumps([pk, sk]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *, pk: str, prefix: str) -> str:
    """The sort key to continue after; a cursor of another query raises InvalidInput."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        value = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        value = None
    match value:
        case [str() as of, str() as sk] if of == pk and sk.startswith(prefix) and sk:
            return sk
    raise InvalidInput("The cursor is broken or belongs to another list; begin without one.")
