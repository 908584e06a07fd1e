"""Fetching a known model from its publisher: resumes, and trusts nothing but the digest."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from imageclust.embedding.cards import ModelCard
from imageclust.embedding.known import BUILTIN, KNOWN_MODELS
from imageclust.embedding.registry import ModelRegistry
from imageclust.errors import CorruptData, InvalidInput, StoreUnavailable, UnknownModel

#: ``fetch(url, start)`` yields the bytes of ``url`` from offset ``start`` on; OSError when the
#: network fails.
Fetch = Callable[[str, int], Iterator[bytes]]
_BLOCK = 1 << 18
_TIMEOUT_S = 30


def pull(
    name: str,
    *,
    registry: ModelRegistry,
    fetch: Fetch | None = None,
    say: Callable[[str], None] = lambda _: None,
    known: tuple[ModelCard, ...] = KNOWN_MODELS,
) -> ModelCard:
    """Fetch a known model into the registry's first folder.

    Args:
        name: one of ``known``.
        registry: where it goes; an installed model is not fetched again.
        fetch: how bytes come; by default over HTTPS.
        say: gets one line of text: what is fetched, from where, how big, under which licence.
        known: the models with a publisher's address and digest.

    Raises:
        UnknownModel: no such known model; the message lists them.
        StoreUnavailable: the network failed; what has come is kept and the next call resumes.
        CorruptData: the bytes do not match the digest; they are thrown away.
    """
    for entry in registry.list():
        if entry.name == name and entry.state == "installed" and entry.card:
            say(f"{name} is installed already ({entry.directory}).")
            return entry.card
    cards = {card.name: card for card in known if card.url}
    card = cards.get(name)
    if card is None:
        raise UnknownModel(
            f"There is no model {name!r} to pull. Known: {', '.join(sorted(cards)) or 'none'}. "
            f"A model file with a card is added with `imageclust models add FILE`; "
            f"{BUILTIN!r} needs no file."
        )
    folder = registry.directories[0]
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{card.file}.part"
    start = partial.stat().st_size if partial.exists() else 0
    again = f", resumed at {start / 1e6:.1f} MB" if start else ""
    say(f"{name}: {card.size_bytes / 1e6:.1f} MB from {card.url} ({card.licence}){again}")
    if start < card.size_bytes or not card.size_bytes:
        _download(card, partial, start, fetch or https_fetch)
    _verify(card, partial)
    partial.replace(folder / card.file)
    # The card goes last: a model without a card is not listed, so a kill leaves no half model.
    text = json.dumps(card.to_json(), indent=1) + "\n"
    draft = folder / f".{card.name}.json.part"
    draft.write_text(text, encoding="utf-8")
    draft.replace(folder / f"{card.name}.json")
    return card


def https_fetch(url: str, start: int) -> Iterator[bytes]:
    """Yield the bytes of an https address from ``start`` on. OSError when the network fails."""
    if not url.startswith("https://"):
        raise InvalidInput(f"A model is fetched over https only, not from {url!r}.")
    # Only a pull needs the network modules, and they are slow to import.
    import http.client
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
    except http.client.HTTPException as error:
        raise OSError(f"the answer broke off: {error!r}") from error


def _download(card: ModelCard, partial: Path, start: int, fetch: Fetch) -> None:
    size = start
    try:
        with partial.open("ab") as stream:
            for block in fetch(card.url, start):
                size += len(block)
                if card.size_bytes and size > card.size_bytes:
                    break
                stream.write(block)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise StoreUnavailable(
            f"{card.name} could not be fetched ({reason}). What has come is kept: run the same "
            f"command again with a network. Until then use the embedder {BUILTIN!r}, which needs "
            f"no file, or add a file from elsewhere with `imageclust models add FILE`."
        ) from error
    if card.size_bytes and size > card.size_bytes:
        partial.unlink()
        raise CorruptData(
            f"{card.url} gives more than the {card.size_bytes} bytes of {card.name}: "
            "it is not the file that the card names, and was thrown away."
        )


def _verify(card: ModelCard, partial: Path) -> None:
    with partial.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found == card.sha256:
        return
    if card.size_bytes and partial.stat().st_size < card.size_bytes:
        raise StoreUnavailable(
            f"{card.name}: the connection ended early. Run the same command again to resume."
        )
    partial.unlink()
    raise CorruptData(
        f"The file from {card.url} does not match the digest of {card.name} "
        f"({found[:12]}… instead of {card.sha256[:12]}…) and was thrown away."
    )
