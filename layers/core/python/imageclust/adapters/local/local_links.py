"""Addresses of objects at the local server, in place of presigned S3."""

from urllib.parse import quote, unquote, urlsplit

from imageclust.errors import NotFound
from imageclust.keys import join_uri, split_uri
from imageclust.ports import SignedUpload

OBJECTS_ROUTE = "/objects/"


class LocalLinks:
    """Links to ``BASE/objects/BUCKET/KEY``: GET downloads, a form POST uploads.

    The fields of an upload are what the server checks: the key, the content type and the most
    bytes. They are not signed, for the server listens to this machine only and has its own limit.
    """

    def __init__(self, base_url: str) -> None:
        self._base = base_url.rstrip("/")

    def upload(self, uri: str, *, content_type: str, max_bytes: int) -> SignedUpload:
        """Where to post one file of at most ``max_bytes``."""
        fields = {
            "key": split_uri(uri)[1],
            "Content-Type": content_type,
            "max-bytes": str(max_bytes),
        }
        return SignedUpload(url=self.download(uri), fields=fields)

    def download(self, uri: str) -> str:
        """The address of an object's bytes."""
        bucket, key = split_uri(uri)
        path = f"{bucket}/{key}".encode("utf-8", "surrogateescape")
        return f"{self._base}{OBJECTS_ROUTE}{quote(path)}"


def uri_of(address: str) -> str:
    """The ``s3://`` address behind a path or link made by ``LocalLinks``. Raises NotFound."""
    path = urlsplit(address).path
    if not path.startswith(OBJECTS_ROUTE):
        raise NotFound(f"There is no object at {path}.")
    bucket, _, key = unquote(path[len(OBJECTS_ROUTE) :], errors="surrogateescape").partition("/")
    if not bucket or not key:
        raise NotFound(f"There is no object at {path}.")
    return join_uri(bucket, key)
