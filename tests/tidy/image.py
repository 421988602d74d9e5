"""What `deploy/Dockerfile` makes of the tree, read as its engine reads it: its stages, and the files it is given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tests.tidy.project_files import ROOT, project_files

_CONTINUED = re.compile(r"\\\n\s*")


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction of a stage, which is counted from 0: `COPY`, and all that is said of it."""

    stage: int
    word: str
    text: str

    @property
    def options(self) -> dict[str, str]:
        """`--from=build` and the like."""
        return dict(re.findall(r"--([a-z-]+)=(\S+)", self.text))

    @property
    def arguments(self) -> list[str]:
        """What is said besides them."""
        return [part for part in self.text.split() if not part.startswith("--")]


@dataclass(frozen=True, slots=True)
class Copied:
    """A file of the tree, and where it is in a stage; `mode` is none but its own where nothing is said."""

    stage: int
    source: Path
    target: PurePosixPath
    mode: str | None


def steps() -> list[Step]:
    """The instructions of the Dockerfile, in their order."""
    text = _CONTINUED.sub(" ", (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8"))
    found, stage = [], -1
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            stage += word == "FROM"
            found.append(Step(stage, word, rest.strip()))
    return found


def is_let_in(path: Path) -> bool:
    """Whether `.dockerignore` lets the engine see a file: the last pattern that fits it or a folder of it counts."""
    places = [path.as_posix(), *(parent.as_posix() for parent in path.parents if parent.parts)]
    let_in = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").strip("/")
        if any(_matches(pattern, place) for place in places):
            let_in = line.startswith("!")
    return let_in


def _matches(pattern: str, place: str) -> bool:
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.fullmatch("".join(pieces.get(part, re.escape(part)) for part in parts), place) is not None


def copied() -> Iterator[Copied]:
    """Every file of the tree that is copied into a stage."""
    seen = [file for file in project_files() if is_let_in(file)]
    for step in steps():
        if step.word != "COPY" or "from" in step.options:
            continue
        *sources, target = step.arguments
        for source in sources:
            for file in seen:
                if file.is_relative_to(source):
                    is_it = file == Path(source)
                    below = file.name if is_it else file.relative_to(source).as_posix()
                    place = (
                        PurePosixPath(target) if is_it and not target.endswith("/") else PurePosixPath(target, below)
                    )
                    yield Copied(step.stage, file, place, step.options.get("chmod"))
