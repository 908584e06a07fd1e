"""Any picture in; upright RGB pixels, a fingerprint and a thumbnail out, from one decode."""

from imageclust.images.decode import DecodedImage, DecodeLimits, decode_image
from imageclust.images.exif import ExifFacts, parse_exif
from imageclust.images.fingerprint import Fingerprint, fingerprint
from imageclust.images.header import Header, read_header
from imageclust.images.pool import DecodePool
from imageclust.images.process import Processed, ProcessOptions, process
from imageclust.images.thumbnail import thumbnail

__all__ = [
    "DecodeLimits",
    "DecodePool",
    "DecodedImage",
    "ExifFacts",
    "Fingerprint",
    "Header",
    "ProcessOptions",
    "Processed",
    "decode_image",
    "fingerprint",
    "parse_exif",
    "process",
    "read_header",
    "thumbnail",
]
