"""``imageclust estimate``: what a run of a folder, or of so many images, would cost on AWS."""

import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from imageclust import keys
from imageclust.costs import Place, default_prices, estimate_table, read_overrides
from imageclust.descriptions.words import counted
from imageclust.errors import InvalidInput
from imageclust.models import RunConfig
from imageclust.settings import Settings
from imageclust.steps.estimate_run import RunEstimate, estimate_run
from imageclust.steps.ingest import ensure_collection

from local.home import open_services
from local.run import link_photos, name_for


def estimate_folder(
    photos: Path | None,
    *,
    images: int | None,
    config: RunConfig,
    home: Path,
    place: Place,
    stored: bool = True,
) -> RunEstimate:
    """Estimate a run on AWS; vectors in the state folder are taken off unless ``stored`` is off.

    Raises InvalidInput: no folder, or both a folder and a number of images.
    """
    if config.labeler == "auto":
        config = replace(config, labeler="rekognition")  # labels of this machine do not count there
    if (photos is None) == (images is None):
        raise InvalidInput("an estimate is of a folder or of --images N: give one of them")
    with tempfile.TemporaryDirectory() as empty:
        if photos is None:
            with closing(open_services(Path(empty))) as services:
                return estimate_run(services, config=config, images=images, place=place)
        if not photos.is_dir():
            raise InvalidInput(f"there is no folder {photos}")
        photos = photos.resolve()
        name = name_for(photos)
        known = _collection_of(photos, home) if stored else None
        if known is not None:
            with closing(open_services(home)) as services:
                if services.table.get(keys.COLLECTIONS_PK, known) is not None:
                    return estimate_run(services, config=config, collection=known, place=place)
        # No run has seen this folder: a state of its own, so that asking leaves no trace.
        with closing(open_services(Path(empty))) as services:
            ensure_collection(services, name, now=datetime.now(UTC))
            link_photos(Path(empty), name, photos)
            return estimate_run(services, config=config, collection=name, place=place)


def _collection_of(photos: Path, home: Path) -> str | None:
    """The collection that shows the folder, its own one before those of another name."""
    uploads = home / "uploads"
    links = [link for link in uploads.iterdir() if link.is_symlink()] if uploads.is_dir() else []
    names = [link.name for link in links if link.readlink() == photos]
    return min(names, key=lambda name: (name != name_for(photos), name), default=None)


def place_on_aws(region: str, prices: Path | None) -> Place:
    """A deployment with default settings in ``region``; ``prices`` is a JSON file of figures."""
    overrides = read_overrides(prices.read_text("utf-8")) if prices else {}
    known = default_prices().with_overrides(overrides)
    return Place(Settings(), region, prices=known)


def told(found: RunEstimate) -> str:
    """The estimate for a terminal."""
    lines = []
    known = found.known
    if known is not None:
        lines.append(
            f"{counted(known.files, 'file')}, {counted(known.images, 'distinct image')}; "
            f"{counted(known.cached.vectors, 'vector')} and "
            f"{counted(known.cached.labels, 'label')} are stored"
        )
    lines.append("On this machine a run costs nothing. On AWS:")
    lines.append(
        estimate_table(replace(found.estimate, notes=(*found.notes, *found.estimate.notes)))
    )
    return "\n".join(lines)
