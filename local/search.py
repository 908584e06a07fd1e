"""``imageclust search``: the pictures of a collection nearest to words or to a picture."""

from contextlib import closing
from pathlib import Path

from imageclust import keys
from imageclust.errors import InvalidInput
from imageclust.steps.search import Hit, search_image, search_text
from imageclust.wiring import Services, use

from local.home import open_services


def search_collection(
    collection: str | None, *, home: Path, text: str | None, image: Path | None, top: int
) -> tuple[Hit, ...]:
    """Hits, nearest first. InvalidInput says in one sentence why there can be none.

    ``collection`` is a name or a title, such as that of the folder; None: the only one there is.
    """
    if (text is None) == (image is None):
        raise InvalidInput("give either words or --image FILE to search for")
    if image is not None and not image.is_file():
        raise InvalidInput(f"there is no file {image}")
    if not home.is_dir():
        raise InvalidInput(
            f"there is no state folder {home}: run 'imageclust run PHOTOS' first, or name the "
            "folder with --home"
        )
    services = open_services(home)
    use(services)
    with closing(services):
        collection = _name(services, collection)
        if image is not None:
            return search_image(services, collection, image.read_bytes(), top=top)
        return search_text(services, collection, text or "", top=top)


def _name(services: Services, given: str | None) -> str:
    """The name of the collection that people mean."""
    titles = {
        str(item["name"]): item.get("title") or item["name"]
        for item in services.table.query(keys.COLLECTIONS_PK).items
    }
    if given is not None and given in titles:
        return given
    meant = [name for name, title in titles.items() if given in (None, title)]
    if len(meant) == 1:
        return meant[0]
    if not titles:
        raise InvalidInput("there is no collection yet: run 'imageclust run PHOTOS' first")
    told = ", ".join(n if n == title else f"{n} ({title})" for n, title in titles.items())
    if given is None:
        raise InvalidInput(f"name the collection with --collection. There are: {told}.")
    many = "more than one" if meant else "no"
    raise InvalidInput(f"there is {many} collection '{given}'. There are: {told}.")


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
