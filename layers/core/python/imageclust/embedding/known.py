"""Models that ``models pull`` can fetch.

An entry is a card with the publisher's address of the very file and its SHA-256, both checked by
whoever adds it: never an address or a digest from memory. The table may be empty; any model with
a card can be added from a file.
"""

from imageclust.embedding.cards import ModelCard

KNOWN_MODELS: tuple[ModelCard, ...] = ()
