"""The command line, `firstcome`. Each command is a module of its own, imported when it is called."""

import importlib
import importlib.metadata

import click

COMMANDS = {
    "up": "Run the whole shop on this machine: servers, worker, API, a demo catalogue.",
    "api": "Serve HTTP.",
    "worker": "Make what Redis decided durable in PostgreSQL, and finish what was begun.",
    "migrate": "Bring the PostgreSQL schema to this program's version.",
    "doctor": "Check Redis, PostgreSQL and the settings; name the remedy for what is wrong.",
    "audit": "Compare Redis with PostgreSQL and check the laws of conservation, while traffic runs.",
    "events": "The events that writers have stopped at: list, show, retry, set aside.",
    "mock": "Serve the API's examples, without any server behind it.",
    "rebuild": "Make Redis anew from PostgreSQL, with progress.",
    "replay": "Sell real orders from a file once more, and check the books.",
    "token": "Make a bearer token for development, or a secret to sign them with.",
    "receiver": "A small data platform for the demo: keeps the paid orders it is sent.",
}


class Commands(click.Group):
    """Finds a command in the module of its name."""

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command; one that Ctrl-C ends says that nothing of it goes on, while click would say `Aborted!`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nStopped; nothing is left running.", err=True)
            ctx.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(importlib.metadata.version("firstcome"), package_name="firstcome")
def main() -> None:
    """Firstcome, a Redis-first commerce engine: the first to come is the first served, exactly once.

    `firstcome up` runs all of it on this machine; `firstcome COMMAND --help` tells more about each command.
    """
