"""How large a picture or a map may be before anything makes room for it."""

# Files of a few kilobytes may claim any size; networks and evaluators need up to 2 GB for this one.
MAX_PIXELS = 52_000_000


class TooManyPixelsError(ValueError):
    """A picture that is refused before its pixels take memory."""
