"""Whether idempotency keys are acted on: one switch for the checks, the specification, the mock and the problems."""

from __future__ import annotations

from typing import Final

KEYS_ARE_HONOURED: Final[bool] = False
"""A POST may carry `Idempotency-Key`. Its form is checked in any case; only where this is true does a key do anything,
and only then is anything promised of it."""
