"""``imageclust search``: the pictures of a collection nearest to words or to a picture."""

from contextlib import closing
from pathlib import Path

from imageclust.errors import InvalidInput
from imageclust.steps.search import Hit, search_image, search_text
from imageclust.wiring import use

from local.home import open_services


def search_collection(
    collection: str, *, home: Path, text: str | None, image: Path | None, top: int
) -> tuple[Hit, ...]:
    """Hits, nearest first. InvalidInput says in one sentence why there can be none."""
    if (text is None) == (image is None):
        raise InvalidInput("give either words or --image FILE to search for")
    if image is not None and not image.is_file():
        raise InvalidInput(f"there is no file {image}")
    if not home.is_dir():
        raise InvalidInput(f"there is no state folder {home}; name it with --home")
    services = open_services(home)
    use(services)
    with closing(services):
        if image is not None:
            return search_image(services, collection, image.read_bytes(), top=top)
        return search_text(services, collection, text or "", top=top)


def table(hits: tuple[Hit, ...]) -> str:
    """The hits as lines for people: similarity, file, cluster."""
    if not hits:
        return "nothing found"
    width = min(60, max(len(_shown(hit.path)) for hit in hits))
    return "\n".join(
        f"{hit.similarity:7.4f}  {_shown(hit.path):<{width}}  {_cluster(hit)}" for hit in hits
    )


def _cluster(hit: Hit) -> str:
    return f"{hit.title} ({hit.cluster_id})" if hit.cluster_id else "outlier"


def _shown(path: str) -> str:
    """A path that any terminal can print: bytes that are not UTF-8 shown as escapes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
