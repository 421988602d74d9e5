"""A client that a stranger's generator has made from the specification alone."""

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

NAME = "generated_shop_client"


class GeneratedClient:
    """The generated package: its operations by tag and name, its models by name."""

    def __init__(self, folder: Path, specification: bytes) -> None:
        (folder / "openapi.json").write_bytes(specification)
        # What tidies the result up is of no use here, and may not be installed.
        (folder / "config.yaml").write_text("post_hooks: []\n")
        done = subprocess.run(
            [
                sys.executable, "-m", "openapi_python_client", "generate", "--path", str(folder / "openapi.json"),
                "--config", str(folder / "config.yaml"), "--meta", "none", "--output-path", str(folder / NAME),
                "--fail-on-warning",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        sys.path.insert(0, str(folder))
        try:
            self.package = importlib.import_module(NAME)
            self.models = importlib.import_module(f"{NAME}.models")
        finally:
            sys.path.remove(str(folder))

    def client(self, url: str) -> Any:
        """A client of a shop that asks for no token."""
        return self.package.Client(base_url=url)

    def operation(self, tag: str, name: str) -> ModuleType:
        """An operation's module, with `sync` and the like."""
        return importlib.import_module(f"{NAME}.api.{tag}.{name}")
