"""The error of this package."""


class EmbeddedError(Exception):
    """What prevents an embedded store from starting, in one line for the person who starts it."""
