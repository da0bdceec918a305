"""Checksums inside of records: what a later run relies on is what an earlier one wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_KEY = "seal"


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of JSON values with the checksum of all of them."""
    return {**record, _KEY: _checksum(record)}


def unsealed(content: Any) -> dict[str, Any] | None:
    """The record without its checksum; None where it is none, was damaged or changed by hand."""
    if not isinstance(content, dict):
        return None
    record = {key: value for key, value in content.items() if key != _KEY}
    return record if content.get(_KEY) == _checksum(record) else None


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
