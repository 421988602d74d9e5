"""Entity tags (RFC 9110, 8.8.3 and 13.1.2): a client that polls is told that nothing has changed."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

_DIGEST_BYTES: Final = 12
_TAG: Final = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def entity_tag(body: bytes) -> bytes:
    """The tag of a representation: the same for the same bytes, whichever process answers."""
    return b'"%s"' % blake2b(body, digest_size=_DIGEST_BYTES).hexdigest().encode()


def is_known(tag: bytes, if_none_match: bytes) -> bool:
    """Whether `If-None-Match` names the tag, weakly compared, or takes any with `*`."""
    return if_none_match.strip() == b"*" or tag in _TAG.findall(if_none_match)
