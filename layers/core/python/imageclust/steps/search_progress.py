"""What a search for the best clustering has tried so far, kept in the object store.

A kill or the end of a function's time loses at most the seconds since the last part was written.
"""

import hashlib
import io
import time
import zipfile
from collections.abc import Callable, Iterator, MutableMapping

from imageclust import keys
from imageclust.ports import ObjectStore

_EVERY_S = 10.0  # a small collection is done before that, and nothing is written


class SearchProgress(MutableMapping[str, bytes]):
    """The checkpoint of one search as objects, each a zip of what was new when it was written.

    Args:
        store: where the parts lie.
        bucket: the data bucket.
        digest: of everything that the clustering depends on.
        clock: seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
        bucket: str,
        digest: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._digest = digest
        self._clock = clock
        self._held: dict[str, bytes] = {}
        self._new: dict[str, bytes] = {}
        self._parts = [
            part.uri for part in store.list(bucket, keys.search_progress_key(digest, ""))
        ]
        for part in self._parts:
            with zipfile.ZipFile(io.BytesIO(store.read(part))) as held:
                self._held.update((name, held.read(name)) for name in held.namelist())
        self._written = clock()

    def __getitem__(self, key: str) -> bytes:
        return self._held[key]

    def __setitem__(self, key: str, value: bytes) -> None:
        self._held[key] = self._new[key] = value
        if self._clock() - self._written >= _EVERY_S:
            self.flush()

    def __delitem__(self, key: str) -> None:
        raise TypeError("what was tried stays tried")

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def flush(self) -> None:
        """Write what is new as one more part."""
        if self._new:
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as part:
                for key, value in self._new.items():
                    part.writestr(key, value)
            named = hashlib.sha256("\n".join(self._new).encode()).hexdigest()[:12]
            key = keys.search_progress_key(self._digest, f"{len(self._parts):04d}-{named}.zip")
            uri = keys.join_uri(self._bucket, key)
            self._store.write(uri, packed.getvalue())
            self._parts.append(uri)
            self._new = {}
        self._written = self._clock()

    def forget(self) -> None:
        """Remove the parts: the result of the search is stored."""
        for part in self._parts:
            self._store.delete(part)
