"""Makes the diagrams of docs/diagrams: `python -m tests.tidy.diagrams`, and with `--render MMDC` their pictures too.

The sequences are written by hand; tables, classes and states come from the program. `MMDC` is the command line of
mermaid-cli (an npm package, with a browser); each picture names the text that it was made of.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from persistence.tables import metadata
from tests.scripts.transitions import COUPON, ORDER, RESERVATION, Transition, payment

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "diagrams"

SEQUENCES = {
    "sequence-charge": "Charge a balance",
    "sequence-order": "Order",
    "sequence-payment": "Pay an order",
    "sequence-checkout": "Order and pay at once",
    "sequence-give-back": "Cancel, expire, give back",
    "sequence-coupon": "Take a first-come coupon",
    "sequence-best-sellers": "Best sellers",
}
STATES = {
    "state-order": ("States of an order", ORDER),
    "state-payment": ("States of a payment", payment()),
    "state-coupon": ("States of a coupon", COUPON),
    "state-reservation": ("States of a reservation", RESERVATION),
}
PARTICIPANTS = {"user", "product", "stock", "order", "coupon", "balance", "payment"}

# No foreign key crosses partitions, and none is there: one writer writes all rows of a partition, in the order of its
# events. What a column refers to is said by its name.
REFERENCES = {
    "order_id": "orders",
    "product_id": "product",
    "campaign_id": "campaign",
    "coupon_id": "coupon",
    "user_id": "wallet",
    "last_order": "orders",
}
NOT_REFERRING = {("wallet", "user_id")}

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]

ENGINE_MODULES = (
    "engine", "runner", "lanes", "partitions", "keys", "idempotency", "wallet", "catalog", "stock", "orders",
    "payments", "coupons", "bestsellers", "durability", "recovery",
)  # fmt: skip


def entities() -> str:
    """The tables and what refers to what."""
    lines = ["erDiagram"]
    for table in metadata.sorted_tables:
        lines.append(f"    {table.name} {{")
        for column in table.columns:
            kind = str(column.type.compile(dialect=DIALECT)).split("(")[0].replace(" ", "_").lower()
            mark = " PK" if column.primary_key else ""
            lines.append(f"        {kind} {column.name}{mark}")
        lines.append("    }")
    lines += sorted(set(_references(metadata.sorted_tables)))
    return "\n".join(lines) + "\n"


def _references(tables: Iterable[Table]) -> Iterator[str]:
    keys = {table.name: {column.name for column in table.primary_key} for table in tables}
    for table in tables:
        for column in table.columns:
            target = REFERENCES.get(column.name)
            if target is None or target == table.name or (table.name, column.name) in NOT_REFERRING:
                continue
            many = "||" if keys[table.name] == {column.name} else "o{"
            many = "|o" if many == "||" else many
            yield f"    {target} ||--{many} {table.name} : {column.name}"


def classes() -> str:
    """The engine's classes: what others call of them, and what each is made with."""
    found: dict[str, tuple[str, ast.ClassDef]] = {}
    for module in ENGINE_MODULES:
        tree = ast.parse((ROOT / "engine" / f"{module}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name] = (module, node)
    lines = ["classDiagram", "    direction LR"]
    for module in ENGINE_MODULES:
        names = [name for name, (where, _) in found.items() if where == module]
        if names:
            lines.append(f"    namespace {module} {{")
            lines += [f"        class {name}" for name in names]
            lines.append("    }")
    for name, (_, node) in found.items():
        lines += [f"    {name} : {member}" for member in _members(node)]
    for name, (_, node) in found.items():
        bases = {ast.unparse(base) for base in node.bases} & found.keys()
        lines += [f"    {base} <|-- {name}" for base in sorted(bases)]
        lines += [f"    {name} --> {used}" for used in sorted(_made_with(node) & found.keys() - {name} - bases)]
    return "\n".join(lines) + "\n"


def _members(node: ast.ClassDef) -> Iterator[str]:
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id[0] != "_":
            yield f"{item.target.id} {_plain(ast.unparse(item.annotation))}"
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and not item.name.startswith("_"):
            arguments = ", ".join(argument.arg for argument in item.args.args[1:] + item.args.kwonlyargs)
            yield f"{item.name}({arguments})"


def _made_with(node: ast.ClassDef) -> set[str]:
    """The classes named in the fields and in the constructor."""
    annotations = [item.annotation for item in node.body if isinstance(item, ast.AnnAssign)]
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            annotations += [argument.annotation for argument in item.args.args if argument.annotation]
            # The composition root makes its parts itself.
            annotations += [call.func for call in ast.walk(item) if isinstance(call, ast.Call)]
    return {name.id for each in annotations for name in ast.walk(each) if isinstance(name, ast.Name)}


def _plain(annotation: str) -> str:
    """An annotation without what Mermaid takes for something else."""
    return annotation.replace("[", "‹").replace("]", "›").replace('"', "")


def states(transitions: Iterable[Transition]) -> str:
    """What takes one state into another."""
    lines = ["stateDiagram-v2"]
    for each in sorted(transitions):
        lines.append(f"    {each.before} --> {each.after}: {each.script}, {each.why}")
    ends = {each.after for each in transitions} - {each.before for each in transitions}
    lines += [f"    {end} --> [*]" for end in sorted(ends - {"[*]"})]
    return "\n".join(lines) + "\n"


def made() -> dict[str, str]:
    """The diagrams that come from the program: text by name."""
    return {
        "entities": entities(),
        "classes": classes(),
        **{name: states(transitions) for name, (_, transitions) in STATES.items()},
    }


def page() -> str:
    """The page that shows them all, as GitHub draws them."""
    titles = {
        **SEQUENCES,
        **{name: title for name, (title, _) in STATES.items()},
        "entities": "Tables",
        "classes": "Classes of the engine",
    }
    lines = [
        "# Diagrams",
        "",
        "Tables, classes and states are made from the program, and every state's transitions are tried in a test;",
        "the scripts and problems that the sequences name are held against the program",
        "(`python -m tests.tidy.diagrams`).",
        "Beside each stands its picture, for where Mermaid is not drawn.",
        "",
    ]
    for name, title in titles.items():
        text = (FOLDER / f"{name}.mmd").read_text(encoding="utf-8") if name in SEQUENCES else made()[name]
        lines += [f"## {title}", "", f"[picture]({name}.svg)", "", "```mermaid", text.rstrip("\n"), "```", ""]
    return "\n".join(lines)


def names() -> list[str]:
    """Every diagram."""
    return [*SEQUENCES, *made()]


def mark_of(name: str) -> str:
    """The comment in a picture that names the text it was made of."""
    text = (FOLDER / f"{name}.mmd").read_bytes()
    return f"<!-- made of {name}.mmd {sha256(text).hexdigest()[:16]} -->"


def render(command: list[str]) -> None:
    """Make every picture whose text has changed."""
    for name in names():
        picture = FOLDER / f"{name}.svg"
        if picture.exists() and picture.read_text(encoding="utf-8").endswith(mark_of(name) + "\n"):
            continue
        source = str(FOLDER / f"{name}.mmd")
        # One id for all pictures, so that the same text makes the same picture.
        subprocess.run([*command, "-q", "-i", source, "-o", str(picture), "-b", "white", "-I", name], check=True)
        # A tenth of a pixel is fine enough.
        drawn = re.sub(r"(\d\.\d)\d+", r"\1", picture.read_text(encoding="utf-8")).rstrip("\n")
        picture.write_text(f"{drawn}\n{mark_of(name)}\n", encoding="utf-8")


if __name__ == "__main__":
    for made_name, made_text in made().items():
        (FOLDER / f"{made_name}.mmd").write_text(made_text, encoding="utf-8")
    (FOLDER / "README.md").write_text(page(), encoding="utf-8")
    if sys.argv[1:2] == ["--render"]:
        render(sys.argv[2:])
