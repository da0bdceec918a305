"""What a server grants its clients, and how it says no."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

MIB = 2**20
# Photographs of telephones have up to 50 million pixels, most of them 12.
MAX_PIXELS = 50_000_000
# Of storages elsewhere; other schemes of fsspec lead to this machine, or into other files.
_REMOTE_SCHEMES = frozenset(("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf"))


class RequestRefusedError(Exception):
    """A request that gets an answer without a map.

    Attributes:
        status: of HTTP.
        reason: what was expected, what came and what to do.
        headers: of the answer.
    """

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}


@dataclass(frozen=True)
class ServingLimits:
    """What a client may ask for.

    Attributes:
        max_bytes: of the body of a request, and of a file behind a URI.
        max_pixels: of a picture; asked of its header, before anything is decoded.
        max_images: in a request.
        max_waiting: images in the hands of a replica; more are answered with 503.
        seconds: of a request, from its last byte to its answer; and from its first to its last.
        uri_prefixes: beginnings of the URIs that clients may name, up to a slash; none: no URI.
    """

    max_bytes: int = 32 * MIB
    max_pixels: int = MAX_PIXELS
    max_images: int = 16
    max_waiting: int = 32
    seconds: float = 60.0
    uri_prefixes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_images", "max_waiting", "seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")
        for prefix in self.uri_prefixes:
            parts = urlsplit(prefix)
            if parts.scheme not in _REMOTE_SCHEMES or "::" in prefix:
                raise ValueError(
                    f"clients may not name files of this machine; got the prefix '{prefix}'; "
                    f"expected one such as s3://bucket/photos/, of {sorted(_REMOTE_SCHEMES)}"
                )
            if not parts.netloc or not prefix.endswith("/"):
                raise ValueError(
                    f"a prefix of URIs must name a host or bucket and end with a slash; got "
                    f"'{prefix}'"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; who may be asked for images is nobody's business."""
        values = asdict(self)
        del values["uri_prefixes"]
        return values


def check_uri(uri: str, limits: ServingLimits) -> None:
    """Lets a URI pass that is below one of the prefixes, whatever its parts mean to a storage.

    Raises:
        RequestRefusedError: 403, any other.
    """
    below = any(uri.startswith(prefix) for prefix in limits.uri_prefixes)
    steps = unquote(unquote(uri)).replace("\\", "/").split("/")
    is_plain = uri.isprintable() and " " not in uri
    if not below or ".." in steps or "::" in uri or not is_plain:
        raise RequestRefusedError(
            403,
            f"{uri!r:.200} is not below a prefix that this server reads from; send the image "
            "itself, or ask its operator (--allow-uris)",
        )
