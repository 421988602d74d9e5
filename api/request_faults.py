"""What is wrong with a request, in words: which part of it, what came and what is taken.

Called only where a request is refused, so it may look again at what the quick checks have passed over.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from api.operations import PathParameter
from api.problems import (
    INVALID_REQUEST,
    MALFORMED_BODY,
    UNSUPPORTED_MEDIA_TYPE,
    FieldError,
    Problem,
    invalid_request,
)

TEXT_LENGTH_MAX: Final = 300
QUOTED_LENGTH_MAX: Final = 100

_JSON_WORDS: Final = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}
_TYPES: Final = re.compile(r"`(?:[a-z]+ \| )*[a-z]+`")
_UNKNOWN_FIELD: Final = "Object contains unknown field "


def shortened(text: str, length_max: int = TEXT_LENGTH_MAX) -> str:
    """The text, or its beginning with three dots."""
    return text if len(text) <= length_max else f"{text[:length_max]}..."


def unsupported_media_type(headers: dict[bytes, bytes], *, declares_json: bool) -> Problem:
    """The refusal of a body by its headers: of one that is not declared as JSON, or that has an encoding, or both."""
    faults = []
    content_type = headers.get(b"content-type", b"").strip()
    if not content_type:
        faults.append("The header Content-Type is missing; send `application/json`.")
    elif not declares_json:
        is_json = content_type.partition(b";")[0].strip().lower() == b"application/json"
        remedy = "send the body in UTF-8, and `application/json` alone" if is_json else "send `application/json`"
        faults.append(f"The header Content-Type is `{_shown(content_type)}`; {remedy}.")
    encoding = headers.get(b"content-encoding")
    if encoding is not None:
        faults.append(f"The header Content-Encoding is `{_shown(encoding)}`; send the body as it is, without it.")
    return Problem(UNSUPPORTED_MEDIA_TYPE, " ".join(faults))


def malformed_body(error: Exception, body: bytes) -> Problem:
    """The refusal of a body that is not JSON, by what the decoder raised."""
    match error:
        case RecursionError():
            reason = "nested too deeply"
        case UnicodeDecodeError():
            reason = _where_not_utf8(body)
        case _:
            reason = shortened(str(error))
    return Problem(MALFORMED_BODY, f"The body is not JSON: {reason}.")


def invalid_part(part: str, error: msgspec.ValidationError) -> Problem:
    """The decoder's message, `Expected ... - at `$.a[0]``, as a problem with a location such as `body.a[0]`."""
    message, _, place = str(error).replace(r"\\Z", "$").partition(" - at `$")
    message = shortened(_in_json_words(message))
    where = shortened(part + place.rstrip("`"))
    return Problem(INVALID_REQUEST, f"{where}: {message}", errors=[FieldError(location=where, message=message)])


def invalid_query(
    query_type: type[msgspec.Struct], values: dict[str, str | int], error: msgspec.ValidationError
) -> Problem:
    """As `invalid_part`; a parameter that the operation does not have is told those that it has."""
    names = [field.encode_name for field in msgspec.structs.fields(query_type)]
    unknown = next((name for name in values if name not in names), None)
    if unknown is None or not str(error).startswith(_UNKNOWN_FIELD):
        return invalid_part("query", error)
    taken = ", ".join(f"`{name}`" for name in names) or "none"
    return invalid_request(
        "query", f"Unknown parameter `{shortened(unknown, QUOTED_LENGTH_MAX)}`; this address takes {taken}"
    )


def invalid_id(parameter: PathParameter, value: str) -> Problem:
    """The refusal of an id in the path: too long, of other characters, or a segment that leads elsewhere."""
    wrong = value.strip(parameter.characters)[:1]
    if wrong:
        message = f"Expected only the characters {_alphabet(parameter.characters)}, not {_character(wrong)}"
    elif len(value) > parameter.length_max:
        message = f"Expected at most {parameter.length_max} characters, got {len(value)}"
    else:
        message = "Expected an id, not `.` or `..`"
    return invalid_request(f"path.{parameter.name}", message)


def _shown(header: bytes) -> str:
    """A header's value in visible ASCII, without what would end its quotes."""
    text = "".join(
        character if " " <= character <= "~" and character != "`" else "?" for character in header.decode("latin-1")
    )
    return shortened(text, QUOTED_LENGTH_MAX)


def _where_not_utf8(body: bytes) -> str:
    # The decoder counts from the beginning of the text that it is in, the client from the beginning of the body.
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 (byte {error.start} is 0x{body[error.start]:02x})"
    return "it is not UTF-8"


def _in_json_words(message: str) -> str:
    """The decoder's types by their names in JSON; it takes Python's. Other messages quote what the client sent."""
    if not message.startswith("Expected `"):
        return message
    return _TYPES.sub(
        lambda types: re.sub(r"[a-z]+", lambda word: _JSON_WORDS.get(word[0], word[0]), types[0]), message
    )


def _alphabet(characters: str) -> str:
    """The characters with spaces between them, runs of letters and digits as `A-Z`."""
    for first, last in ("AZ", "az", "09"):
        run = "".join(map(chr, range(ord(first), ord(last) + 1)))
        characters = characters.replace(run, f"\0{first}-{last}\0")
    parts = [part if len(part) == 3 and part[1] == "-" else " ".join(part) for part in characters.split("\0") if part]
    return " ".join(parts)


def _character(character: str) -> str:
    if character == " ":
        return "a space"
    return f"`{character}`" if "!" <= character <= "~" else f"U+{ord(character):04X}"
