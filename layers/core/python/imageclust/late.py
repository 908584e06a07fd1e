"""numpy that loads at its first use: ``from imageclust.late import np``.

Importing numpy takes longer than all else that a run does when nothing has changed. Modules that
such a run goes through write this in place of ``import numpy as np`` and use ``np`` inside
functions only; ``NDArray`` they import for type checkers only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["np"]

if TYPE_CHECKING:
    import numpy as np
else:

    class _Numpy:
        def __getattr__(self, name: str) -> Any:
            found = getattr(import_module("numpy"), name)
            setattr(self, name, found)  # the next use does not come here
            return found

    np = _Numpy()
