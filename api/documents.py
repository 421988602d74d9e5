"""What explains the surface to people and programs: the specification, its page, a page for every problem, the runbook.

All of it is served from this package; no page asks another address for anything.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from api.document_page import page
from api.entity_tags import entity_tag, is_known
from api.openapi import openapi_json, problem_value
from api.problem_examples import examples_of
from api.problems import PROBLEMS, Problem, ProblemType
from api.runbook import PATH as RUNBOOK
from api.runbook import runbook_html
from api.walkthrough import SHOP

_MEDIA_TYPES: Final = {"docs.css": "text/css", "docs.js": "text/javascript"}
_VARY: Final = {"Vary": "Accept"}
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_OWN_ONLY: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'"
}


def document_routes() -> list[Route]:
    """The routes of `/`, `/openapi.json`, `/docs`, `/problems` and `/runbook`."""
    return [
        Route("/openapi.json", _specification),
        Route("/", _to_docs),
        Route("/docs", _docs),
        Route("/docs/", _up_to_docs),
        Route("/docs/{file}", _docs_file),
        Route("/problems", _problems),
        Route("/problems/{name}", _problem),
        Route(RUNBOOK, _runbook),
    ]


async def _specification(request: Request) -> Response:
    return _tagged(request, await asyncio.to_thread(openapi_json), "application/json")


async def _docs(request: Request) -> Response:
    page = await asyncio.to_thread(_served_page)
    origin = _origin(request)
    if origin is not None:
        page = page.replace(SHOP.encode(), origin.encode())
    return _tagged(request, page, "text/html", {**_OWN_ONLY, "Vary": "X-Forwarded-Proto"})


def _origin(request: Request) -> str | None:
    """The address that the reader came by, for what is to be typed; None where the request does not tell it.

    A proxy says whether it was asked by TLS. Whoever else says so changes what is shown to himself alone.
    """
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        return None
    scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
    return f"{'https' if scheme == 'https' else 'http'}://{host}"


@cache
def _served_page() -> bytes:
    """Made once, which takes longer than any request may wait for: not in the event loop."""
    return page(
        '<link rel="stylesheet" href="docs/docs.css">',
        '<script src="docs/docs.js"></script>',
        '<a href="openapi.json">the specification</a>',
    ).encode()


def _tagged(request: Request, body: bytes, media_type: str, more: Mapping[str, str] | None = None) -> Response:
    """The body with its entity tag, or 304 where the client has it already."""
    tag = entity_tag(body)
    headers = {**(more or {}), "ETag": tag.decode("ascii"), "Cache-Control": "no-cache"}
    known = request.headers.get("if-none-match")
    if known is not None and is_known(tag, known.encode("latin-1")):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def page_in_one_file() -> str:
    """The page of `/docs` with its style and script inside, to be read offline: `docs/api.html`."""
    style, script = _static("docs.css").decode(), _static("docs.js").decode()
    specification = "<code>/openapi.json</code> of a shop, or of <code>firstcome mock</code>,"
    return page(f"<style>\n{style}</style>", f"<script>\n{script}</script>", specification)


async def _to_docs(_: Request) -> Response:
    return RedirectResponse("docs")


async def _up_to_docs(_: Request) -> Response:
    return RedirectResponse("../docs")


async def _docs_file(request: Request) -> Response:
    file = request.path_params["file"]
    if file not in _MEDIA_TYPES:
        raise HTTPException(404)
    return Response(_static(file), media_type=_MEDIA_TYPES[file])


async def _runbook(request: Request) -> Response:
    return _tagged(request, (await asyncio.to_thread(runbook_html)).encode(), "text/html", _OWN_ONLY)


async def _problems(request: Request) -> Response:
    if not _wants_html(request):
        return PlainTextResponse("".join(f"{kind.status} {kind.uri}  {kind.title}\n" for kind in PROBLEMS.values()))
    rows = "".join(
        f'<tr><td>{kind.status}<td><a href="problems/{kind.name}">{kind.name}</a><td>{escape(kind.title)}'
        for kind in PROBLEMS.values()
    )
    return _page("Problems", "docs/docs.css", f"<table>{rows}</table>")


async def _problem(request: Request) -> Response:
    kind = PROBLEMS.get(request.path_params["name"])
    if kind is None:
        raise HTTPException(404)
    if _wants_html(request):
        return _page(kind.title, "../docs/docs.css", problem_html(kind))
    if "json" in request.headers.get("accept", ""):
        return Response(msgspec.json.encode(problem_document(kind)), media_type="application/json", headers=_VARY)
    return PlainTextResponse(problem_text(kind), headers=_VARY)


def problem_document(kind: ProblemType) -> dict[str, object]:
    """What a problem means and what to do, for a program."""
    return {
        "type": kind.uri,
        "title": kind.title,
        "status": kind.status,
        "meaning": kind.meaning,
        "remedy": kind.remedy,
        "retryable": kind.retry.value,
        "members": list(kind.members),
        "examples": [problem_value(example.problem, repeatable=False) for example in examples_of(kind.name)],
    }


def problem_text(kind: ProblemType) -> str:
    """What a problem means and what to do, as text."""
    parts = [f"{kind.title}\n{kind.status} {kind.uri}", kind.meaning, f"What to do: {kind.remedy}", _retryable(kind)]
    if kind.members:
        parts.append(f"It carries: {', '.join(kind.members)}.")
    parts.extend(f"{example.summary}:\n{_example(example.problem)}" for example in examples_of(kind.name))
    return "\n\n".join(parts) + "\n"


def problem_html(kind: ProblemType) -> str:
    """What a problem means and what to do, as the inside of a page."""
    members = "".join(f"<li><code>{name}</code>" for name in kind.members)
    examples = "".join(
        f"<h2>{escape(example.summary)}</h2><pre>{escape(_example(example.problem))}</pre>"
        for example in examples_of(kind.name)
    )
    return (
        f"<p><code>{kind.status} {kind.name}</code><p>{_code(kind.meaning)}<h2>What to do</h2><p>{_code(kind.remedy)}"
        f"<p>{_code(_retryable(kind))}" + (f"<h2>It carries</h2><ul>{members}</ul>" if members else "") + examples
    )


def _retryable(kind: ProblemType) -> str:
    return f"Retryable: {kind.retry.value}."


def _example(problem: Problem) -> str:
    value = problem_value(problem, repeatable=False)
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _code(text: str) -> str:
    """Escaped text, with what stands between backticks as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


def _page(title: str, style: str, inside: str) -> HTMLResponse:
    heading = escape(title)
    return HTMLResponse(
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{heading}</title><link rel="stylesheet" href="{style}"><main><h1>{heading}</h1>{inside}</main>',
        headers={**_OWN_ONLY, **_VARY},
    )


def _wants_html(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _static(file: str) -> bytes:
    return (files("api") / "static" / file).read_bytes()
