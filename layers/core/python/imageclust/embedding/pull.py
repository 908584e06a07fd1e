"""Fetching a known model from its publisher: resumes, and trusts nothing but the digests."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from imageclust.embedding.cards import CardFile, ModelCard
from imageclust.embedding.known import BUILTIN, KNOWN_MODELS
from imageclust.embedding.registry import ModelRegistry
from imageclust.errors import CorruptData, InvalidInput, Permanent, StoreUnavailable, UnknownModel

#: ``fetch(url, start)`` yields the bytes of ``url`` from offset ``start`` on; OSError when the
#: network fails, Permanent when the publisher answers and has no such file.
Fetch = Callable[[str, int], Iterator[bytes]]
_BLOCK = 1 << 18
_TIMEOUT_S = 30
#: Answers that may be others in a while: 408 timeout, 429 too many, and faults of the server.
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_INSTEAD = (
    f"Until then use the embedder {BUILTIN!r}, which needs no file, or add a file from elsewhere "
    "with `imageclust models add FILE`."
)


def pull(
    name: str,
    *,
    registry: ModelRegistry,
    fetch: Fetch | None = None,
    say: Callable[[str], None] = lambda _: None,
    known: tuple[ModelCard, ...] = KNOWN_MODELS,
) -> ModelCard:
    """Fetch every file of a known model into the registry's first folder.

    Args:
        name: one of ``known``.
        registry: where it goes; files that are installed and whole are not fetched again.
        fetch: how bytes come; by default over HTTPS.
        say: gets one line of text: what is fetched, from where, how big, under which licence.
        known: the models with a publisher's addresses and digests.

    Raises:
        UnknownModel: no such known model; the message lists them.
        StoreUnavailable: the network failed; what has come is kept and the next call resumes.
        Permanent: the disk is full, or the publisher has the file no more.
        CorruptData: the bytes do not match the digest; they are thrown away.
    """
    cards = {card.name: card for card in known if card.url}
    card = cards.get(name)
    for entry in registry.list():
        # Another file of the same name stays what it is; of this very model what lacks is fetched.
        if entry.name == name and entry.state == "installed" and entry.card and entry.directory:
            files = card.files if card and card.sha256 == entry.card.sha256 else ()
            if all((entry.directory / file.file).is_file() for file in files):
                say(f"{name} is installed already ({entry.directory}).")
                return entry.card
    if card is None:
        raise UnknownModel(
            f"There is no model {name!r} to pull. Known: {', '.join(sorted(cards)) or 'none'}. "
            f"A model file with a card is added with `imageclust models add FILE`; "
            f"{BUILTIN!r} needs no file."
        )
    folder = registry.directories[0]
    folder.mkdir(parents=True, exist_ok=True)
    missing = [file for file in card.files if not _is_whole(folder / file.file, file)]
    say(_announced(card, missing, folder))
    for file in missing:
        partial = _partial(folder, file)
        if _size(partial) < file.size_bytes or not file.size_bytes:
            _download(file, partial, fetch or https_fetch)
        _verify(file, partial)
        partial.replace(folder / file.file)
    # The card goes last: a model without a card is not listed, so a kill leaves no half model.
    text = json.dumps(card.to_json(), indent=1) + "\n"
    draft = folder / f".{card.name}.json.part"
    draft.write_text(text, encoding="utf-8")
    draft.replace(folder / f"{card.name}.json")
    return card


def _announced(card: ModelCard, missing: list[CardFile], folder: Path) -> str:
    """What is about to be fetched, in one line."""
    size = sum(file.size_bytes for file in missing)
    came = sum(_size(_partial(folder, file)) for file in missing)
    where = missing[0].url if missing else card.url
    count = f" in {len(missing)} files" if len(missing) > 1 else ""
    again = f", resumed at {came / 1e6:.1f} MB" if came else ""
    others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"{card.name}: {size / 1e6:.1f} MB{count} from {where}{others} ({card.licence}){again}"


def _partial(folder: Path, file: CardFile) -> Path:
    return folder / f".{file.file}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_whole(path: Path, file: CardFile) -> bool:
    return path.is_file() and _digest(path) == file.sha256


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def https_fetch(url: str, start: int) -> Iterator[bytes]:
    """Yield the bytes of an https address from ``start`` on.

    OSError when the network fails, Permanent when the answer is no file.
    """
    if not url.startswith("https://"):
        raise InvalidInput(f"A model is fetched over https only, not from {url!r}.")
    # Only a pull needs the network modules, and they are slow to import.
    import http.client
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, headers={"User-Agent": "imageclust"})  # noqa: S310
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            # A server that knows no ranges sends the whole file again.
            skip = 0 if answer.status == http.client.PARTIAL_CONTENT else start
            while block := answer.read(_BLOCK):
                kept = block[skip:]
                skip -= len(block) - len(kept)
                if kept:
                    yield kept
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _PASSING:
                raise OSError(f"the publisher answers {error.code} {error.reason}") from error
            raise Permanent(
                f"{url} is not to be had: the publisher answers {error.code} {error.reason}. "
                f"{_INSTEAD}"
            ) from error
    except http.client.HTTPException as error:
        raise OSError(f"the answer broke off: {error!r}") from error


def _download(file: CardFile, partial: Path, fetch: Fetch) -> None:
    # Only a pull on one machine needs it.
    import fcntl

    with partial.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Permanent(f"Another imageclust fetches {file.file} just now.") from None
        start = size = stream.seek(0, os.SEEK_END)
        blocks = fetch(file.url, start)
        while True:
            try:
                block = next(blocks, None)
            except OSError as error:
                reason = getattr(error, "reason", None) or error
                reason = getattr(reason, "strerror", None) or reason
                raise StoreUnavailable(
                    f"{file.file} could not be fetched ({reason}). What has come is kept: run the "
                    f"same command again with a network. {_INSTEAD}"
                ) from error
            if block is None:
                return
            size += len(block)
            if file.size_bytes and size > file.size_bytes:
                break
            try:
                stream.write(block)
                stream.flush()
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                reason = "the disk is full" if full else error.strerror
                left = f", {(file.size_bytes - start) / 1e6:.1f} MB are needed" if full else ""
                raise Permanent(
                    f"{file.file} could not be written to {partial.parent}: {reason}{left}. What "
                    "has come is kept: run the same command again."
                ) from error
    partial.unlink()
    raise CorruptData(
        f"{file.url} gives more than the {file.size_bytes} bytes of {file.file}: "
        "it is not the file that the card names, and was thrown away."
    )


def _verify(file: CardFile, partial: Path) -> None:
    found = _digest(partial)
    if found == file.sha256:
        return
    if file.size_bytes and partial.stat().st_size < file.size_bytes:
        raise StoreUnavailable(
            f"{file.file}: the connection ended early. Run the same command again to resume."
        )
    partial.unlink()
    raise CorruptData(
        f"The file from {file.url} does not match the digest of {file.file} "
        f"({found[:12]}… instead of {file.sha256[:12]}…) and was thrown away."
    )
