"""Holds answers against the specification: the mock's and the real API's alike."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import unquote

import httpx
import msgspec
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]
from jsonschema.exceptions import best_match  # type: ignore[import-untyped]
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from api.openapi import problem_structs

_ADDRESSES_BEYOND_THE_TABLE: Final = {404: "NotFoundProblem", 405: "MethodNotAllowedProblem"}
_SPECIFICATION: Final = "urn:firstcome:specification"


class SpecValidator:
    """Checks answers and values against an OpenAPI 3.1 document. AssertionError tells what does not fit.

    Answers are held to more than the document says: they may have no member that it does not name, for a member that is
    left out or misspelt must not pass as an extra one.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        closed: dict[str, Any] = {**document, "$schema": "https://json-schema.org/draft/2020-12/schema"}
        bodies = {**_schemas_beyond_the_table(), **document["components"]["schemas"]}
        closed["components"] = {
            **document["components"],
            "schemas": {name: _close(schema) for name, schema in bodies.items()},
        }
        self._registry: Registry[Any] = Registry().with_resource(
            _SPECIFICATION, Resource.from_contents(closed, default_specification=DRAFT202012)
        )
        self._paths = {
            re.compile("/".join("[^/]+" if part.startswith("{") else re.escape(part) for part in path.split("/"))): item
            for path, item in document["paths"].items()
        }

    def check(self, response: httpx.Response) -> Any:
        """The answer's decoded body (None for HEAD), once its status, headers, media type and body fit the document."""
        request = response.request
        where = f"{request.method} {request.url.raw_path.decode()} -> {response.status_code}"
        assert response.headers.get("x-request-id"), f"{where}: no X-Request-Id"
        operation = self.operation(request.method, request.url.path)
        if operation is None:
            assert response.status_code in _ADDRESSES_BEYOND_THE_TABLE, f"{where}: not in the specification"
            schema: Any = self._component(_ADDRESSES_BEYOND_THE_TABLE[response.status_code])
            assert response.status_code != 405 or "allow" in response.headers, f"{where}: no Allow"
            content = {"application/problem+json": {"schema": schema}}
        else:
            documented = operation["responses"].get(str(response.status_code))
            assert documented is not None, f"{where}: the status is not in the specification: {response.text[:300]}"
            self._check_headers(documented.get("headers", {}), response.headers, where)
            if "content" not in documented:
                assert response.content == b"", f"{where}: a body that is not in the specification"
                return None
            content = documented["content"]
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in content, f"{where}: {media_type} is not in the specification"
        if request.method == "HEAD":
            assert response.content == b"", f"{where}: HEAD has a body"
            return None
        body = response.json()
        self.check_value(content[media_type]["schema"], body, where)
        if media_type == "application/problem+json":
            assert body["status"] == response.status_code, f"{where}: the body says {body['status']}"
            assert body["request_id"] == response.headers["x-request-id"], f"{where}: another request id in the body"
        return body

    def check_value(self, schema: dict[str, Any], value: Any, where: str = "value") -> None:
        """Holds a value to a schema of the document."""
        validator = Draft202012Validator(
            _absolute(schema), registry=self._registry, format_checker=FormatChecker(["date", "date-time"])
        )
        error = best_match(validator.iter_errors(value))
        assert error is None, f"{where}: {error.json_path}: {error.message}"

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """The operation that serves a method and path; HEAD is served as GET."""
        for pattern, item in self._paths.items():
            if pattern.fullmatch(unquote(path)):
                found: dict[str, Any] | None = item.get("get" if method == "HEAD" else method.lower())
                return found
        return None

    def _check_headers(self, documented: dict[str, Any], headers: httpx.Headers, where: str) -> None:
        for name, header in documented.items():
            described = self._resolve(header)
            if name in headers:
                value: Any = headers[name]
                if described["schema"].get("type") == "integer":
                    assert value.isdigit(), f"{where}: {name} is {value!r}"
                    value = int(value)
                self.check_value(described["schema"], value, f"{where}: {name}")
            else:
                assert not described.get("required"), f"{where}: no {name}"

    def _component(self, name: str) -> dict[str, Any]:
        return {"$ref": f"#/components/schemas/{name}"}

    def _resolve(self, part: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in part:
            return part
        found: Any = self.document
        for key in part["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        resolved: dict[str, Any] = found
        return resolved


def _schemas_beyond_the_table() -> dict[str, Any]:
    """The bodies of problems that no operation answers, so that none of the document's components is unused."""
    structs = [problem_structs()[name] for name in ("not-found", "method-not-allowed")]
    return msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")[1]


def _close(schema: Any) -> Any:
    """The schema, refusing members that it does not name."""
    if isinstance(schema, dict):
        closed = {key: _close(value) for key, value in schema.items()}
        return {"additionalProperties": False, **closed} if schema.get("type") == "object" else closed
    return [_close(item) for item in schema] if isinstance(schema, list) else schema


def _absolute(schema: Any) -> Any:
    """The schema, with its references pointing into the registered document."""
    if isinstance(schema, dict):
        return {
            key: f"{_SPECIFICATION}{value}" if key == "$ref" and value.startswith("#") else _absolute(value)
            for key, value in schema.items()
        }
    return [_absolute(item) for item in schema] if isinstance(schema, list) else schema
