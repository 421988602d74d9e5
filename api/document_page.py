"""The page of `/docs`, made from the specification: how to buy, pay and retry, then every operation and problem.

It is whole without JavaScript, which only opens what a link leads to and filters. The same page with its style and
script inside is `docs/api.html`, to be read offline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import msgspec

from api import page_parts as parts
from api.examples import COUPON_ID
from api.openapi import openapi_document, problem_structs, problem_value
from api.operations import OPERATIONS, Operation
from api.problem_examples import examples_of
from api.problems import PROBLEMS, ProblemType
from api.retrying import CLIENT, RULES, advice
from api.walkthrough import PREPARATION, SHOP, STEPS, WITH_TOKEN

_EVENT: Final = "order.paid"
_BY_ID: Final = {operation.operation_id: operation for operation in OPERATIONS}
_KEPT: Final = {
    "charge_balance": "position",
    "place_order": "order_id",
    "issue_coupon": "coupon_id",
    "list_deliveries": "delivery_id",
}
"""Of whose answer a member is kept for requests below: an id that only the shop can know."""
_BEFORE: Final = {"cancel_order": "place_order"}
"""What is asked once more before: the order that was placed above is paid by then."""
_NEW_KEY: Final = "key=$(cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen)"
_TOKENS: Final = """\
token=$(firstcome token --user mina)
operator=$(firstcome token --user operator --admin)"""


def page(style: str, script: str, specification: str) -> str:
    """The whole page; `style` and `script` are the elements that bring them, `specification` says where that is."""
    document = openapi_document()
    schemas = parts.Schemas(document["components"]["schemas"])
    info = document["info"]
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    main = "".join(
        [
            f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
            '<p class="lead">Charge a balance, order products, take first-come coupons, pay. This page is all you '
            f"need; {specification} says the same to programs.</p>",
            _buying(),
            _retrying(),
            f'<section id="conventions"><h2>What holds everywhere</h2>{parts.prose(info["description"])}</section>',
            _operations(),
            *(_tag(name, text, document, schemas) for name, text in tags.items()),
            _problems(),
            _webhook(document["webhooks"][_EVENT]["post"], schemas),
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en" data-shop="{SHOP}">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title>{style}</head>\n"
        f"<body>{_navigation(tags)}<main>{main}</main>{script}</body>\n</html>\n"
    )


def _navigation(tags: Mapping[str, str]) -> str:
    first = {"buy": "Buy something", "retry": "How to retry", "conventions": "What holds everywhere"}
    last = {"problems": "Problems", "events": "Events"}
    links = "".join(f'<li><a href="#{anchor}">{escape(text)}</a>' for anchor, text in first.items())
    for name in tags:
        operations = "".join(
            f'<li><a href="#{operation.operation_id}">{escape(operation.summary)}</a>'
            for operation in OPERATIONS
            if operation.tag == name
        )
        links += f'<li><a href="#{_anchor(name)}">{escape(name)}</a><ul>{operations}</ul>'
    links += "".join(f'<li><a href="#{anchor}">{escape(text)}</a>' for anchor, text in last.items())
    return f'<nav><details id="contents"><summary>Contents</summary><ul>{links}</ul></details></nav>'


def _buying() -> str:
    steps = "".join(
        f'<li id="step-{step.name}"><h3>{escape(step.title)}</h3><p>{parts.inline(step.text)}</p>'
        f"{parts.code(step.command, 'ask')}{parts.code(step.answer, 'answer')}</li>"
        for step in STEPS
    )
    return (
        '<section id="buy"><h2>Buy something</h2>'
        "<p>For a shop that <code>make run</code> or <code>firstcome up</code> has started, with its demo catalogue, "
        f"at <code>{SHOP}</code>; put in its address where it is elsewhere. "
        "Type this into a shell first, and then step by step. Below each step is the status that comes, and what "
        "matters of the answer.</p>"
        f"{parts.code(PREPARATION, 'ask')}"
        "<p>Where the shop asks for tokens, sign every request with the user's own (<code>firstcome token</code> makes "
        "one for development; in a clone that is <code>.venv/bin/firstcome token</code>):</p>"
        f'{parts.code(WITH_TOKEN, "ask")}<ol class="steps">{steps}</ol>'
        '<p>When a request is refused, the answer is a <a href="#problems">problem</a> that says why and what to do. '
        'When no answer comes, or one that may be better next time: <a href="#retry">how to retry</a>.</p></section>'
    )


def _retrying() -> str:
    rules = "".join(f"<li>{parts.inline(rule)}</li>" for rule in RULES)
    rows = [
        [
            f"<strong>{escape(row.came)}</strong>",
            "" if row.problem is None else _link(row.problem),
            parts.inline(row.again),
            parts.inline(row.do),
        ]
        for row in advice()
    ]
    return (
        f'<section id="retry"><h2>How to retry</h2><ol>{rules}</ol>'
        "<h3>For each status what a client does</h3>"
        f"{parts.table(('status', 'problem', 'again?', 'what to do'), rows, 'stacked')}"
        f"<h3>A client that does so</h3>{parts.code(CLIENT)}"
        "</section>"
    )


def _operations() -> str:
    return (
        '<section id="operations"><h2>Operations</h2>'
        "<p>What stands under <strong>Ask</strong> is typed as it is, into one shell, from above to below: a shop that "
        "<code>make run</code> has just started answers each with a 2xx. The user is <code>mina</code>. A "
        "<code>key</code> is made once for what is wanted: to send it again, repeat the <code>curl</code> alone. "
        "An id that only the shop can know, such as an order's, is kept from an answer above. Where the shop asks for "
        f"tokens, say first:</p>{parts.code(_TOKENS)}"
        '<label class="find">Find <input id="find" type="search" '
        'placeholder="coupon, 409, balance" autocomplete="off"></label></section>'
    )


def _tag(name: str, text: str, document: Mapping[str, Any], schemas: parts.Schemas) -> str:
    cards = "".join(
        _card(operation, document["paths"][operation.path][operation.method.lower()], document, schemas)
        for operation in OPERATIONS
        if operation.tag == name
    )
    head = f"<h3>{escape(name)}</h3><p>{parts.inline(text)}</p>"
    return f'<section class="group" id="{_anchor(name)}">{head}{cards}</section>'


def _card(
    operation: Operation, described: Mapping[str, Any], document: Mapping[str, Any], schemas: parts.Schemas
) -> str:
    method = operation.method
    summary = (
        f'<span class="method {method.lower()}">{method}</span> <code>{escape(operation.path)}</code> '
        f'<span class="about">{escape(operation.summary)}</span>'
    )
    inside = [parts.prose(described["description"]), f"<h4>Ask</h4>{parts.code(_sample(operation), 'ask')}"]
    parameters = [_resolved(parameter, document) for parameter in described["parameters"]]
    if parameters:
        inside.append(f"<h4>Parameters</h4>{_parameters(parameters, schemas)}")
    for content in described.get("requestBody", {}).get("content", {}).values():
        optional = "" if described["requestBody"]["required"] else " <em>optional</em>"
        inside.append(f"<h4>Body{optional}</h4>{schemas.members(content['schema'])}{_examples(content)}")
    inside.append("<h4>Answers</h4>")
    for status, answer in described["responses"].items():
        content = answer.get("content", {}).get("application/json")
        if content is not None:
            told = f"<strong>{status}</strong> {parts.inline(answer['description'])}{_headers(answer)}"
            members = parts.folded("Members", schemas.members(content["schema"]))
            inside.append(f"<p>{told}</p>{members}{_examples(content)}")
        elif status == "304":
            inside.append(f"<p><strong>304</strong> {parts.inline(answer['description'])}</p>")
    problems = "".join(f"<li>{kind.status} {_link(kind)} {escape(kind.title)}</li>" for kind in operation.problems)
    inside.append(parts.folded("Problems that it can answer", f"<ul>{problems}</ul>"))
    return parts.folded(summary, "".join(inside), anchor=operation.operation_id, kind="operation")


def _parameters(parameters: Sequence[Mapping[str, Any]], schemas: parts.Schemas) -> str:
    rows = [
        [
            f"<code>{escape(parameter['name'])}</code> <em>{parameter['in']}"
            f"{'' if parameter.get('required') else ', optional'}</em>",
            escape(schemas.type_of(parameter["schema"])),
            parts.inline(parameter.get("description", "")),
        ]
        for parameter in parameters
    ]
    return parts.table(("parameter", "type", "meaning"), rows, "members")


def _sample(operation: Operation) -> str:
    """What is typed into a shell, in the order of the page."""
    first = _BEFORE.get(operation.operation_id)
    before = "" if first is None else _sample(_BY_ID[first]) + "\n\n"
    kept = _KEPT.get(operation.operation_id)
    request = _request(operation)
    if kept is not None:
        request = (
            f'answer=$({request})\necho "$answer"\n'
            f"""{kept}=$(echo "$answer" | sed -n 's/.*"{kept}":"\\([^"]*\\)".*/\\1/p')"""
        )
    return before + (request if operation.repeatable else f"{_NEW_KEY}\n{request}")


def _request(operation: Operation) -> str:
    """The request of the first example that needs no coupon of the reader's own."""
    bodies = [
        "" if example.body is None else msgspec.json.encode(example.body).decode() for example in operation.examples
    ]
    example, body = next(pair for pair in zip(operation.examples, bodies, strict=True) if COUPON_ID not in pair[1])
    taken = {name: f"${{{name}:?comes from an answer above}}" for name in example.path_params if name in _KEPT.values()}
    quote = '"' if taken else "'"
    path = operation.path.format(**{**example.path_params, **taken}) + (f"?{example.query}" if example.query else "")
    lines = [f"curl -sS {'' if operation.method == 'GET' else f'-X {operation.method} '}{quote}{SHOP}{path}{quote}"]
    if operation.security != "none":
        name = "operator" if operation.security == "admin" else "token"
        lines.append(f'${{{name}:+-H"Authorization: Bearer ${name}"}}')
    if not operation.repeatable:
        lines.append('-H "Idempotency-Key: ${key:?}"')
    if body:
        lines += ["-H 'Content-Type: application/json'", f"-d '{body}'"]
    return " \\\n  ".join(lines)


def _examples(content: Mapping[str, Any]) -> str:
    return "".join(
        parts.folded(
            f"Example: {parts.inline(example['summary'])}", parts.code(parts.as_json(example["value"]), "answer")
        )
        for example in content.get("examples", {}).values()
    )


def _headers(answer: Mapping[str, Any]) -> str:
    names = ", ".join(f"<code>{escape(name)}</code>" for name in answer.get("headers", ()))
    return f" <small>Headers: {names}</small>" if names else ""


def _problems() -> str:
    cards = "".join(_problem(kind) for kind in sorted(PROBLEMS.values(), key=lambda kind: kind.status))
    return (
        '<section class="group" id="problems"><h2>Problems</h2>'
        "<p>Every refusal is <code>application/problem+json</code> with <code>type</code>, <code>title</code>, "
        "<code>status</code>, <code>detail</code>, <code>retryable</code>, <code>request_id</code>, and what is listed "
        f"here.</p>{cards}</section>"
    )


def _problem(kind: ProblemType) -> str:
    summary = (
        f'<span class="method">{kind.status}</span> <code>{kind.name}</code> '
        f'<span class="about">{escape(kind.title)}</span>'
    )
    (schema,), components = msgspec.json.schema_components(
        (problem_structs()[kind.name],), ref_template="#/components/schemas/{name}"
    )
    own = {**components[kind.struct_name]}
    own["properties"] = {name: part for name, part in own["properties"].items() if name in kind.members}
    carries = parts.Schemas({**components, kind.struct_name: own}).members(schema)
    examples = "".join(
        parts.folded(
            f"Example: {parts.inline(example.summary)}",
            parts.code(parts.as_json(problem_value(example.problem, repeatable=True)), "answer"),
        )
        for example in examples_of(kind.name)
    )
    headers = ", ".join(f"<code>{name}</code>" for name in kind.headers)
    return parts.folded(
        summary,
        f"<p>{parts.inline(kind.meaning)}</p><p><strong>What to do:</strong> {parts.inline(kind.remedy)}</p>"
        f"<p><strong>Retryable:</strong> {parts.inline(kind.retry.value)}.</p>"
        + (f"<p><strong>Headers:</strong> {headers}</p>" if headers else "")
        + (f"<h4>It carries</h4>{carries}" if carries else "")
        + examples,
        anchor=f"problem-{kind.name}",
        kind="operation",
    )


def _webhook(described: Mapping[str, Any], schemas: parts.Schemas) -> str:
    inside = [parts.prose(described["description"])]
    inside.append(f"<h4>Headers</h4>{_parameters(described['parameters'], schemas)}")
    for media_type, content in described["requestBody"]["content"].items():
        inside.append(f"<h4>Body</h4><p><code>{escape(media_type)}</code></p>")
        inside.append(parts.folded("Members", schemas.members(content["schema"])) + _examples(content))
    head = f"<h2>Events</h2><h3><code>{_EVENT}</code> {escape(described['summary'])}</h3>"
    return f'<section id="events">{head}{"".join(inside)}</section>'


def _link(kind: ProblemType) -> str:
    return f'<a href="#problem-{kind.name}"><code>{kind.name}</code></a>'


def _anchor(tag: str) -> str:
    return tag.lower().replace(" ", "-")


def _resolved(parameter: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in parameter:
        return parameter
    found: Mapping[str, Any] = document["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
    return found
