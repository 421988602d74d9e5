"""Makes what explains the HTTP surface offline: `python -m tests.tidy.api_documents`.

`docs/api.html` is the page of `/docs` in one file, `docs/how-to-retry.md` its part about retrying, and
`docs/firstcome.http` a first purchase and the examples of every operation, to be sent from an editor.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from api.documents import page_in_one_file
from api.operations import OPERATIONS, Operation
from api.retrying import markdown
from api.walkthrough import SHOP, STEPS

FOLDER = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES_BEGIN = "# Every operation with its examples"
_HEAD = f"""# Requests to Firstcome, for VS Code's REST Client and other editors that know .http files.
# Made from the program by `make docs`.

@shop = {SHOP}
# A new name begins anew; with the old one every key answers as it did the first time.
@user = mina-1
# `firstcome token --user mina-1`, or with --admin for the operators' part; of no use where the shop has no key.
@token = none


# A first purchase at the demo's shop (`make run`). Send them one after the other.
"""
_EXAMPLES_HEAD = f"""
{EXAMPLES_BEGIN}. `firstcome mock` answers all of them; a shop of `make run` those that name
# no order, coupon, position or delivery: put in the id of one that it knows.
"""


def documents() -> Mapping[str, str]:
    """Each file's name and what is in it."""
    return {"api.html": page_in_one_file(), "how-to-retry.md": markdown(), "firstcome.http": http_file()}


def http_file() -> str:
    """The requests of the purchase and of the examples."""
    purchase = "\n\n".join(step.http() for step in STEPS)
    examples = "\n\n".join(request for operation in OPERATIONS for request in _requests(operation))
    return f"{_HEAD}\n{purchase}\n\n{_EXAMPLES_HEAD}\n{examples}\n"


def _requests(operation: Operation) -> Iterator[str]:
    """Each request of an operation's examples once: those that differ in their answer alone are one."""
    seen = set()
    for example in operation.examples:
        path = operation.path.format(**example.path_params) + (f"?{example.query}" if example.query else "")
        lines = [f"{operation.method} {{{{shop}}}}{path}"]
        if operation.security != "none":
            lines.append("Authorization: Bearer {{token}}")
        if operation.takes_key:
            lines.append("Idempotency-Key: {{$guid}}")
        if example.body is not None:
            body = msgspec.json.format(msgspec.json.encode(example.body), indent=2).decode()
            lines += ["Content-Type: application/json", "", body]
        if "\n".join(lines) not in seen:
            seen.add("\n".join(lines))
            yield "\n".join([f"### {operation.summary}: {example.summary}", *lines])


if __name__ == "__main__":
    for name, text in documents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
