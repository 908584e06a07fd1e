"""Presigned addresses of S3 objects."""

from imageclust.adapters.aws.clients import Clients
from imageclust.adapters.aws.failures import translated
from imageclust.errors import InvalidInput
from imageclust.keys import split_uri
from imageclust.ports import SignedUpload

_SECONDS = 3600


class S3Links:
    """Addresses that work for an hour, or for as long as the signing credentials if shorter.

    Args:
        clients: the AWS clients.
        seconds: how long an address works.
    """

    def __init__(self, clients: Clients, *, seconds: int = _SECONDS) -> None:
        self._clients = clients
        self._seconds = seconds

    def upload(self, uri: str, *, content_type: str, max_bytes: int) -> SignedUpload:
        """A presigned POST of one file: this key, this content type, at most ``max_bytes``."""
        bucket, key = split_uri(uri)
        if "${filename}" in key:
            # S3 would put the client's own file name there and so let it choose the key.
            raise InvalidInput("A file name must not hold '${filename}'.")
        with translated(uri):
            made = self._clients.s3.generate_presigned_post(
                Bucket=bucket,
                Key=key,
                Fields={"Content-Type": content_type},
                Conditions=[
                    {"Content-Type": content_type},
                    ["content-length-range", 0, max_bytes],
                ],
                ExpiresIn=self._seconds,
            )
        return SignedUpload(url=made["url"], fields=dict(made["fields"]))

    def download(self, uri: str) -> str:
        """A presigned GET."""
        bucket, key = split_uri(uri)
        with translated(uri):
            return self._clients.s3.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=self._seconds
            )
