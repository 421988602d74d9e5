"""Who may have what, and how often: the first thing that is looked at in a request.

A user has what is under the user's own id; what is under another's is not there (404), so that nobody learns which
users there are. An operator, whose scope holds `admin`, has everything, and is not counted. Where no key is configured
there is nobody to tell apart, and none of this is asked: the API then serves its own machine only.
"""

from __future__ import annotations

import math
from typing import Any, Final

from api.asgi import Call
from api.authentication import Authenticator, Caller, NotAuthenticated, read_keys
from api.guards.addresses import TrustedProxies
from api.guards.rates import RateLimit
from api.operations import HEALTH
from api.problems import NOT_ALLOWED, NOT_AUTHENTICATED, NOT_FOUND, TOO_MANY_REQUESTS, Problem
from api.settings import ApiSettings

_NOBODY: Final = (
    "A bearer token is required: send `Authorization: Bearer <JWT>`. `firstcome token` makes one for development."
)


class Admission:
    """Lets a request through, or raises its problem (401, 429, 403, 404). `users` and `addresses`: what they may send.

    A user is counted by the token. Who has none, or one that is not taken, is counted by address; a token that was
    never seen is not even verified for an address that has sent too many bad ones.
    """

    def __init__(
        self, authenticator: Authenticator, *, users: RateLimit, addresses: RateLimit, proxies: TrustedProxies
    ) -> None:
        self._authenticator = authenticator
        self._users = users
        self._addresses = addresses
        self._proxies = proxies

    def __call__(self, call: Call[Any, Any]) -> None:
        """Checks a request by its headers and its path's ids, as yet unchecked."""
        operation = call.operation
        authorization = call.headers.get(b"authorization")
        if operation.security == "none":
            if operation.tag != HEALTH:
                self._admit_anybody(call, authorization)
            return
        try:
            caller = self._caller(call, authorization)
        except NotAuthenticated as refusal:
            raise _not_authenticated(refusal.reason) from None
        if caller.is_operator:
            return
        self._count(self._users, caller.subject)
        if operation.security == "admin":
            raise Problem(NOT_ALLOWED, "This needs a token whose scope holds `admin`.")
        if call.path_params["user_id"] != caller.subject:
            raise Problem(NOT_FOUND, "There is nothing of yours at this address.")

    def _admit_anybody(self, call: Call[Any, Any], authorization: bytes | None) -> None:
        """What is for everybody asks for no token, but counts a user rather than the address of many."""
        if authorization is None:
            self._count(self._addresses, self._address(call))
            return
        try:
            caller = self._caller(call, authorization)
        except NotAuthenticated:
            return
        if not caller.is_operator:
            self._count(self._users, caller.subject)

    def _caller(self, call: Call[Any, Any], authorization: bytes | None) -> Caller:
        if authorization is not None:
            known = self._authenticator.remembered(authorization)
            if known is not None:
                return known
        address = self._address(call)
        if wait_s := self._addresses.wait_s(address):
            raise _too_many(wait_s)
        try:
            if authorization is None:
                raise NotAuthenticated
            return self._authenticator.verify(authorization)
        except NotAuthenticated:
            self._addresses.take(address)
            raise

    def _address(self, call: Call[Any, Any]) -> str:
        return self._proxies.client(call.peer, call.headers.get(b"x-forwarded-for"))

    @staticmethod
    def _count(rates: RateLimit, sender: str) -> None:
        if wait_s := rates.take(sender):
            raise _too_many(wait_s)


def make_admission(settings: ApiSettings) -> Admission | None:
    """The admission that the settings ask for; None where no key is configured. Raises SettingError."""
    keys = read_keys(settings)
    if keys is None:
        return None
    return Admission(
        Authenticator(keys, settings),
        users=RateLimit(settings.user_rate, settings.user_burst),
        addresses=RateLimit(settings.address_rate, settings.address_burst),
        proxies=TrustedProxies(settings.trusted_proxies),
    )


def _not_authenticated(reason: str) -> Problem:
    if not reason:
        return Problem(NOT_AUTHENTICATED, _NOBODY)
    challenge = f'Bearer error="invalid_token", error_description="{reason}"'
    return Problem(NOT_AUTHENTICATED, f"{reason}.", headers={"WWW-Authenticate": challenge})


def _too_many(wait_s: float) -> Problem:
    return Problem(
        TOO_MANY_REQUESTS,
        "More requests have come from this user or address than are allowed.",
        headers={"Retry-After": str(math.ceil(wait_s))},
    )
