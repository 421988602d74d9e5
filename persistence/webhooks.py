"""What is sent to the data platform: paid orders as CloudEvents 1.0 in HTTP batches, signed as Standard Webhooks.

An event is written by hand: a dictionary of nine members, for which the `cloudevents` package would add a model layer
and nothing else.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson
from standardwebhooks import Webhook

from engine.positions import position_of, position_text

EVENT_TYPE = "order.paid"
EVENT_SOURCE = "/firstcome"
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"
CONTENT_TYPE = f"{BATCH_MEDIA_TYPE}; charset=utf-8"
BATCH_BYTES_MAX = 512 * 1024
"""An event that is larger goes alone; one of 500 lines has some 100 KiB."""

SECRETS_MAX = 2
SECRET_PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One paid order to be told: the outbox row, how often it was tried, whether the platform has answered to it with
    a refusal, the request that paid it where that is known, and what is sent."""

    id: int
    tries: int
    refused: bool
    event_id: str
    user_id: str
    request_id: str | None
    body: bytes


def make_secret() -> str:
    """A new secret to sign with."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def read_secrets(text: str) -> tuple[str, ...]:
    """The secrets in a setting. ValueError says what is wrong with them, without showing any."""
    found = tuple(text.split())
    if len(found) > SECRETS_MAX:
        raise ValueError(f"takes at most {SECRETS_MAX} secrets, the new and the old one, not {len(found)}")
    for number, secret in enumerate(found, 1):
        try:
            size = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
        except (binascii.Error, ValueError):
            size = 0
        if not secret.startswith(SECRET_PREFIX) or size not in SECRET_BYTES:
            raise ValueError(
                f"takes secrets such as `firstcome receiver --new-secret` makes: {SECRET_PREFIX} and "
                f"{SECRET_BYTES[0]} to {SECRET_BYTES[-1]} bytes in base64; number {number} is none"
            )
    return found


def require_address(url: str) -> None:
    """ValueError unless events can be posted to this URL."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("takes an http:// or https:// URL with a host")


class Signer:
    """Signs as Standard Webhooks has it, once with each live secret, so that the receiver can change over in time."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._webhooks = [Webhook(secret) for secret in secrets]

    def headers(self, message_id: str, body: bytes, at: datetime) -> dict[str, str]:
        """The headers of a post made at this moment."""
        text = body.decode()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(webhook.sign(message_id, at, text) for webhook in self._webhooks),
        }


def batch_body(batch: Sequence[Delivery]) -> bytes:
    """The events of a batch as one JSON array."""
    return b"[" + b",".join(delivery.body for delivery in batch) + b"]"


def batch_id(batch: Sequence[Delivery]) -> str:
    """The message's id: the same whenever the same events are sent together."""
    digest = hashlib.sha256("\n".join(delivery.event_id for delivery in batch).encode())
    return f"msg_{digest.hexdigest()[:32]}"


def in_batches(deliveries: Sequence[Delivery], events_max: int) -> list[list[Delivery]]:
    """Divides deliveries, each of another user, into batches. What was refused before goes alone: when a platform takes
    one event of a batch ill, the others do not share its fate."""
    batches: list[list[Delivery]] = [[delivery] for delivery in deliveries if delivery.refused]
    size = 0
    batch: list[Delivery] = []
    for delivery in deliveries:
        if delivery.refused:
            continue
        if batch and (len(batch) == events_max or size + len(delivery.body) > BATCH_BYTES_MAX):
            batches.append(batch)
            batch, size = [], 0
        batch.append(delivery)
        size += len(delivery.body)
    return [*batches, batch] if batch else batches


def order_paid(row: Sequence[Any], currency: str) -> Delivery:
    """A row of the outbox, joined with its order and lines, as the event that tells it."""
    (outbox_id, tries, refused, event_id, user_id, order_id, subtotal, discount, total, coupon_id, ordered_at,
     pay_before, paid_at, partition, place, request_id, lines) = row  # fmt: skip
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id,
        "source": EVENT_SOURCE,
        "type": EVENT_TYPE,
        "subject": order_id,
        "time": _rfc3339(paid_at),
        "datacontenttype": "application/json",
        # The order as the HTTP surface shows it.
        "data": {
            "order_id": order_id,
            "user_id": user_id,
            "status": "completed",
            "payment": {"status": "paid", "amount": total, "paid_at": _rfc3339(paid_at), "failure": None},
            "lines": lines or [],
            "subtotal": subtotal,
            "discount": discount,
            "total": total,
            "currency": currency,
            "coupon_id": coupon_id,
            "ordered_at": _rfc3339(ordered_at),
            "pay_before": None if pay_before is None else _rfc3339(pay_before),
            "position": position_text((position_of(partition, place),)),
            "durable": True,
        },
    }
    if request_id is not None:
        # An extension attribute: the id of the request that paid the order.
        event["requestid"] = request_id
    return Delivery(outbox_id, tries, refused, event_id, user_id, request_id, orjson.dumps(event))


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
