"""How to retry: for each status and problem what a client does, made from the registry of problems.

The page of `/docs` and `docs/how-to-retry.md` are both made of these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from api.problems import PROBLEMS, ProblemType, Retry

RULES: Final = (
    "**One key for one intention.** Before a POST is sent for the first time, make a random key (a UUID), store it "
    "with what you want done, and send it as `Idempotency-Key`. Keep it until an answer has come, and send every "
    "repetition with it, unchanged. Another intention, such as a second charge, has a key of its own.",
    "**No answer is no refusal.** When the connection breaks, your own deadline passes or a proxy answers in the "
    "shop's place, nobody knows what became of the request: send it again with the same key. What took effect is not "
    "done twice; the first answer comes again, with `Idempotent-Replayed: true`. The shop's own refusals are "
    "`application/problem+json`; whatever else is no success is no answer.",
    "**Look at `retryable`.** Every problem says in its body whether the same request may do better. Where it is "
    "`false`, sending it again is of no use.",
    "**Wait.** Wait for `Retry-After` seconds where the answer says so, else a little, and twice as long each time: "
    "0.2 s, 0.4 s, ... up to 10 s, with jitter, so that not all clients come back at one moment.",
    "**Give up by reading.** After some tries read what you wanted to change: the order, the list of orders, the "
    "balance. With a key it is still safe to go on within a day.",
    "**A key is spent by an effect** and kept for 24 hours. A refusal that changed nothing leaves it free, so a "
    "corrected request may use it. An order that failed for lack of balance is an effect: pay for a new one "
    "under a new key.",
    "**GET, HEAD and PUT** repeat by their nature and take no key. Paying and cancelling do so too, with or without "
    "one: the order's state is the answer.",
)
CLIENT: Final = '''\
import random, time
import httpx


class NoAnswer(Exception):
    """Nobody knows whether it is done: read what you wanted to change, or send it again with the same `key`."""

    def __init__(self, key: str, last: object) -> None:
        super().__init__(f"go on later with Idempotency-Key {key}; what came last: {last!r}")
        self.key = key


def post(client: httpx.Client, url: str, body: dict, key: str) -> httpx.Response:
    """Sends one request until the shop has answered it: its success, or a refusal that will not change.

    Before you call, make `key` (a UUID) and store it with what you want done. Raises NoAnswer, which has it.
    """
    pauses_s = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10)
    for pause_s in (*pauses_s, None):
        asked_s = 0
        try:
            last = answer = client.post(url, json=body, headers={"Idempotency-Key": key})
        except httpx.RequestError as error:
            last = error  # a broken connection: nobody knows what became of it
        else:
            if is_final(answer):
                return answer
            asked = answer.headers.get("Retry-After", "")
            asked_s = min(int(asked), 60) if asked.isdecimal() else 0
        if pause_s is not None:
            time.sleep(asked_s + pause_s * random.uniform(0.5, 1))
    raise NoAnswer(key, last)


def is_final(answer: httpx.Response) -> bool:
    """Whether the shop says so itself, and for good. What a proxy answers in its place, in HTML say, is no answer."""
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if answer.is_success:
        return kind == "application/json"
    try:
        problem = answer.json() if kind == "application/problem+json" else None
    except ValueError:
        problem = None
    return isinstance(problem, dict) and problem.get("retryable") is False
'''
"""A client that retries, in Python; a test runs it."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A row of the table: what came, and what a client does. `problem` is None where no problem came."""

    came: str
    problem: ProblemType | None
    again: str
    do: str


_WITHOUT_PROBLEM: Final = (
    Advice("no answer", None, "yes", "Send the same request with the same key, a little later each time."),
    Advice(
        "502, 503, 504 of a proxy",
        None,
        "yes",
        "It is no answer of the shop, whether it is HTML or a problem with the type `about:blank`: as above.",
    ),
    Advice(
        "200, 201",
        None,
        "no need",
        "It is done. With `durable: false` it is in Redis; `position` tells when it is safe.",
    ),
    Advice("304", None, "no need", "Use the answer that you have: nothing has changed."),
    Advice(
        "400, 431",
        None,
        "no",
        "With the type `about:blank`: it was no request of HTTP/1.1, or its address and headers were too large. Fix "
        "the client.",
    ),
)
_AGAIN: Final[Mapping[Retry, str]] = MappingProxyType(
    {Retry.NO: "no", Retry.YES: "yes", Retry.IF_REPEATABLE: "with a key", Retry.CASE: "if `retryable`"}
)


def advice() -> tuple[Advice, ...]:
    """The whole table, by status."""
    kinds = sorted(PROBLEMS.values(), key=lambda kind: kind.status)
    return (
        *_WITHOUT_PROBLEM,
        *(Advice(str(kind.status), kind, _AGAIN[kind.retry], what_to_do(kind)) for kind in kinds),
    )


def what_to_do(kind: ProblemType) -> str:
    """What a client does about a problem, as a sentence or some."""
    wait = "Wait for `Retry-After` seconds, then send" if "Retry-After" in kind.headers else "Send"
    match kind.retry:
        case Retry.NO | Retry.CASE:
            return kind.remedy
        case Retry.YES:
            return f"{wait} the same request again, with the same key if it had one."
        case Retry.IF_REPEATABLE:
            return f"{kind.remedy} Reads, payments and cancellations may be sent again without a key."


def markdown() -> str:
    """`docs/how-to-retry.md`."""
    rules = "\n".join(f"{number}. {rule}" for number, rule in enumerate(RULES, 1))
    rows = "\n".join(
        f"| {row.came} | {f'`{row.problem.name}`' if row.problem else ''} | {row.again} | {row.do} |"
        for row in advice()
    )
    return f"""# How to retry

Made from the program's table of problems by `make docs`; the same stands in `/docs` of a running shop.

{rules}

## For each status what a client does

| status | problem | again? | what to do |
|---|---|---|---|
{rows}

## A client that does so

```python
{CLIENT}```
"""
