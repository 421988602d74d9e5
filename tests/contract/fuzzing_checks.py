"""What schemathesis asks besides its own checks: a request that fits its schema is refused for a reason of its own.

Loaded by schemathesis in its own process (`SCHEMATHESIS_HOOKS`).
"""

from __future__ import annotations

import re
from typing import Any, Final

import schemathesis
from schemathesis import Case
from schemathesis.checks import CheckContext
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode

BEYOND_JSON_SCHEMA: Final = {
    # JSON Schema takes 1.0 for an integer; the specification's introduction says that it is none here.
    r"body\..*": r"Expected `integer( \| null)?`, got `number`",
    # `uniqueItems` compares whole items, not a member of each; how many a product has by now is not in the request.
    r"body\.stock": "(Expected each `stock_id` once in `stock`|The product would have .*)",
    # A setting of each shop, at `/v1/policies`; the specification is the same for all.
    r"body\.price": "Expected a price of at most .*",
    # Two members compared; a pattern of digits lets the 31st of June pass, and `format` is a note to readers only.
    r"body": "(Expected (`closes_at` after `opens_at`|each `stock_id` once in `stock`)|.* is not a time that exists)",
    # Opaque: what they are made of is not promised.
    r"query\.cursor": "Expected the `next_cursor` of the page before",
    r"(query\.after|path\.position)": "Expected the `position` of an earlier answer",
}
"""The rules that no JSON Schema can say, by where they hold, and why not; descriptions in the specification do."""


@schemathesis.check
def what_fits_the_schema_is_no_invalid_request(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """`invalid-request` answers what the specification's schemas refuse, and nothing else."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE or response.status_code != 422:
        return
    for error in response.json().get("errors", ()):
        known = any(
            re.fullmatch(where, error["location"]) and re.fullmatch(message, error["message"])
            for where, message in BEYOND_JSON_SCHEMA.items()
        )
        if not known:
            raise AssertionError(f"it fits the schema and was refused: {error}")
