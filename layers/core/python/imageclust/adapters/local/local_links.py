"""Addresses of objects at the local server, in place of presigned S3."""

from urllib.parse import quote

from imageclust.keys import split_uri
from imageclust.ports import SignedUpload


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
        return f"{self._base}/objects/{quote(path)}"
