"""Variables of clusters that tests start."""

from __future__ import annotations

import secrets

# No process of this machine without the token gets in.
_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
# Ray's workers are polite to whatever else runs, which beside other tests makes them wait for
# minutes; and it starts one for each core, whether or not anybody wants it.
IMPATIENT = {"RAY_worker_niceness": "0", "RAY_prestart_worker_first_driver": "0"}
RAY_VARIABLES = {**_TOKEN, **IMPATIENT}
