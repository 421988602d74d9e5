"""The id of the request that something is done for."""

from contextvars import ContextVar
from typing import Final

REQUEST_ID: Final[ContextVar[str]] = ContextVar("REQUEST_ID", default="")
"""In the context of a request its id, which every event that it causes says; nothing for what the shop itself does.

A task that a request begins inherits it: one that outlives its request and changes something must clear it.
"""
