"""One-off timers as rows of the table; the local server polls them."""

from collections.abc import Callable
from datetime import UTC, datetime

from imageclust.errors import Conflict, InvalidInput
from imageclust.models import JSON
from imageclust.ports import Table

_PK = "timers"


class TableScheduler:
    """Timers that survive a restart. A timer fires at least once: it is cleared after its call."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def schedule(self, name: str, at: datetime, payload: JSON) -> None:
        """Fire once at ``at`` (UTC) with ``payload``; a pending timer of that name moves there."""
        if at.tzinfo is None:
            raise InvalidInput("A timer needs a time with its time zone.")
        moment = at.astimezone(UTC).isoformat(timespec="microseconds")
        self._table.put({"pk": _PK, "sk": name, "at": moment, "payload": payload})

    def fire_due(self, now: datetime, fire: Callable[[JSON], object]) -> int:
        """Call ``fire`` with the payload of each timer due at ``now``, oldest first.

        A timer stays when its call raises (the error goes on to the caller) or when it was moved
        meanwhile. Returns how many were fired.
        """
        moment = now.astimezone(UTC).isoformat(timespec="microseconds")
        rows = self._table.query(_PK).items
        due = sorted((row["at"], row["sk"]) for row in rows if "at" in row and row["at"] <= moment)
        payloads = {row["sk"]: row["payload"] for row in rows if "at" in row}
        for at, name in due:
            fire(payloads[name])
            try:
                # Emptied and not deleted: only an update can insist on the time that we saw.
                self._table.update(_PK, name, {"at": None, "payload": None}, expect={"at": at})
            except Conflict:
                continue
        return len(due)
