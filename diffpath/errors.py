"""Errors that diffpath raises on purpose.

All are ``ValueError``: the message is one sentence that names the thing, its
value and the way out, so that it can be shown to a user as it is.
"""


class ImageError(ValueError):
    """An image cannot be read or is not an image of a supported kind."""


class ModelError(ValueError):
    """A diffusion model cannot be loaded, or its checkpoint lacks what the method needs."""


class ReferenceSetError(ValueError):
    """A saved reference cannot be read, or does not fit the features that it is to score."""

    @classmethod
    def unreadable(cls, path: object, why: object) -> "ReferenceSetError":
        """Of a file that is not there, or is of another kind."""
        return cls(f"no reference can be read from {path}: {why}; give another path")
