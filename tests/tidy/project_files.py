"""The project's own files, as a clone has them."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NOT_OURS = frozenset({".git", ".venv", ".firstcome", "build", "dist", "node_modules", "__pycache__"})


def project_files() -> list[Path]:
    """Every file that git has or would take, relative to the root; without git, all that tools have not made."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        names = [Path(name.decode()) for name in listed.stdout.split(b"\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*") if _is_ours(path.relative_to(ROOT))]
    return sorted(name for name in names if (ROOT / name).is_file())


def _is_ours(path: Path) -> bool:
    return not any(part in _NOT_OURS or part.endswith(("_cache", ".egg-info")) for part in path.parts)


def text_files() -> list[Path]:
    """Those of them that people read."""
    return [path for path in project_files() if b"\0" not in (ROOT / path).read_bytes()[:4096]]
