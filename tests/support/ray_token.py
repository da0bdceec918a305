"""The token of clusters that tests start: no process of this machine without it gets in."""

from __future__ import annotations

import secrets

WITH_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
