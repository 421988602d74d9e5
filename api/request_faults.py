"""What is wrong with a request, in words: which part of it, what came and what is taken.

Called only where a request is refused, so it may look again at what the quick checks have passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec.inspect import ListType, LiteralType, Metadata, NoneType, StrType, StructType, Type, UnionType, type_info

from api.operations import PATH_PARAMETERS, PathParameter
from api.problems import MALFORMED_BODY, UNSUPPORTED_MEDIA_TYPE, Problem, invalid_request
from api.schemas import CURSOR_PATTERN, TEXT_PATTERN
from api.times import TIME_PATTERN

TEXT_LENGTH_MAX: Final = 300
QUOTED_LENGTH_MAX: Final = 100
CURSOR_EXPECTED: Final = "Expected the `next_cursor` of the page before"

_JSON_WORDS: Final = {"int": "integer", "float": "number", "str": "string", "bool": "boolean"}
_TYPES: Final = re.compile(r"`(?:[a-z]+ \| )*[a-z]+`")
_PLACE: Final = re.compile(r"(.*) - at `\$((?:\.\w+|\[[0-9]{1,9}\])+)`", re.DOTALL)
_STEP: Final = re.compile(r"\.(\w+)|\[([0-9]+)\]")
_UNKNOWN_FIELD: Final = "Object contains unknown field "
_WRONG_VALUE: Final = "Invalid enum value "
_WRONG_FORM: Final = "Expected `str` matching regex "
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BLANK: Final = "Expected more than spaces"
_FORMS: Final = {
    CURSOR_PATTERN: CURSOR_EXPECTED,
    TIME_PATTERN: "Expected a time in UTC such as 2026-12-01T00:00:00Z or 2026-12-01T00:00:00.000Z, from 1970 on",
}


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
            reason = shortened(_where_no_json(body) or str(error))
    return Problem(MALFORMED_BODY, f"The body is not JSON: {reason}.")


def _where_no_json(body: bytes) -> str:
    """Where the body ceases to be JSON: the decoder says of much that is wrong that the input was truncated."""
    try:
        json.loads(body, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        return "it ends too early" if error.pos >= len(body.rstrip()) else f"{what} at character {error.pos + 1}"
    except (RecursionError, UnicodeDecodeError):
        pass
    return ""


def invalid_body(request_type: type[msgspec.Struct], body: bytes, error: msgspec.ValidationError) -> Problem:
    """The refusal of JSON that is not what the operation takes, by what the decoder raised."""
    return _invalid_part("body", request_type, lambda: json.loads(body, parse_int=str, parse_float=str), error)


def invalid_query(
    query_type: type[msgspec.Struct], values: Mapping[str, str | int], error: msgspec.ValidationError
) -> Problem:
    """As `invalid_body`, of the query's parameters."""
    return _invalid_part("query", query_type, lambda: values, error)


def invalid_id(parameter: PathParameter, value: str) -> Problem:
    """The refusal of an id in the path: too long, of other characters, or a segment that leads elsewhere."""
    return invalid_request(f"path.{parameter.name}", _wrong_id(parameter, value))


def one_of(names: Iterable[object]) -> str:
    """What may stand somewhere: `` `open`, `upcoming` or `closed` ``."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} or {last}" if others else last


def _invalid_part(
    part: str, kind: type[msgspec.Struct], read: Callable[[], Any], error: msgspec.ValidationError
) -> Problem:
    """The decoder's message, `Expected ... - at `$.a[0]``, as a problem with a location such as `body.a[0]`.

    `read` gives what was sent in that part; the decoder shows the pattern that a text does not match, not the text.
    """
    found = _PLACE.fullmatch(str(error))
    message, place = found.groups() if found else (str(error), "")
    steps = [name or int(index) for name, index in _STEP.findall(place)]
    match _type_at(kind, steps):
        case StructType(fields=fields) if message.startswith(_UNKNOWN_FIELD):
            unknown, where = ("parameter", "address") if part == "query" else ("member", "object")
            name = shortened(message[len(_UNKNOWN_FIELD) + 1 : -1], QUOTED_LENGTH_MAX)
            taken = ", ".join(f"`{field.encode_name}`" for field in fields) or "none"
            message = f"Unknown {unknown} `{name}`; this {where} takes {taken}"
        case LiteralType(values=values) if message.startswith(_WRONG_VALUE):
            got = shortened(message[len(_WRONG_VALUE) + 1 : -1], QUOTED_LENGTH_MAX)
            message = f"Expected {one_of(values)}, got `{got}`"
        case StrType(pattern=str(pattern)) if message.startswith(_WRONG_FORM):
            value = read()
            for step in steps:
                value = value[step]
            message = wrong_form(pattern, value)
        case _:
            message = shortened(_in_json_words(message))
    return invalid_request(shortened(part + place), message)


def _type_at(kind: type[msgspec.Struct], steps: Iterable[str | int]) -> Type | None:
    """The type of a member of a request, however deep; None where there is no such member."""
    described: Type | None = _described(kind)
    for step in steps:
        match described:
            case StructType(fields=fields):
                described = next((_plain(field.type) for field in fields if field.encode_name == step), None)
            case ListType(item_type=item):
                described = _plain(item)
            case _:
                return None
    return described


@lru_cache(maxsize=64)
def _described(kind: Any) -> Type:
    return _plain(type_info(kind))


def _plain(described: Type) -> Type:
    """A type without its description, and without the null that may stand for it."""
    while True:
        match described:
            case Metadata(type=inner):
                described = inner
            case UnionType(types=types):
                described = next(each for each in types if not isinstance(each, NoneType))
            case _:
                return described


def wrong_form(pattern: str, value: str) -> str:
    """What a text lacks that does not match the pattern of its type; nobody is shown that."""
    if (parameter := _IDS.get(pattern)) is not None:
        return _wrong_id(parameter, value)
    if pattern == TEXT_PATTERN:
        control = _CONTROL.search(value)
        return f"Expected no control character, got {_character(control[0])}" if control else _BLANK
    return _FORMS.get(pattern, "Expected a text of the form that /openapi.json tells")


def _wrong_id(parameter: PathParameter, value: str) -> str:
    if wrong := value.strip(parameter.characters)[:1]:
        return f"Expected only the characters {_alphabet(parameter.characters)}, not {_character(wrong)}"
    if len(value) > parameter.length_max:
        return f"Expected at most {parameter.length_max} characters, got {len(value)}"
    return "Expected an id, not `.` or `..`" if value else f"Expected 1 to {parameter.length_max} characters, got none"


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


_IDS: Final = {
    described.pattern: parameter
    for parameter in PATH_PARAMETERS.values()
    if isinstance(described := _described(parameter.type), StrType)
}
"""By its pattern what an id in a body or a query must be: the same as in a path."""
