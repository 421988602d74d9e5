"""Parameters of the scenarios: on the command line, by environment, and in Locust's web page."""

from argparse import ArgumentParser
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of them: a number or a text, or one of ``choices``."""

    name: str
    default: int | float | str
    told: str
    choices: tuple[str, ...] | None = None

    @property
    def variable(self) -> str:
        """The environment variable that sets it too."""
        return f"LOADTEST_{self.name.upper().replace('-', '_')}"


PARAMETERS = (
    Parameter("coupons", 500, "rush: coupons of the campaign"),
    Parameter("stock", 100, "sale: units of the one product"),
    Parameter("products", 100, "shopping, retries, soak: products on the shelf"),
    Parameter("opens-in", 3.0, "rush, sale: seconds from when all users are there until the opening"),
    Parameter("spread", 1.0, "rush, sale: seconds within which all users come, from the opening on"),
    Parameter("think", 0.0, "seconds that a user thinks between two requests, half to one and a half of it"),
    Parameter("wallet-users", 4, "charges: users that charge one balance at once"),
    Parameter("copies", 4, "retries: how often each request is sent at once"),
    Parameter("settle", 60.0, "seconds after the end until everything must be durable and add up"),
    Parameter("lag-max", 0.0, "seconds that PostgreSQL may have been behind at any look; 0 only reports it"),
    Parameter("run-name", "", "a name for the campaign and the products, instead of one by chance"),
    Parameter(
        "audit",
        "auto",
        "run `firstcome audit` at the end where FIRSTCOME_REDIS_URL and FIRSTCOME_DATABASE_URL are set",
        choices=("auto", "off"),
    ),
)


def add_options(parser: ArgumentParser) -> None:
    """Adds ours to Locust's own (`--users`, `--spawn-rate`, `--run-time`, `--host`, ...)."""
    group = parser.add_argument_group("Firstcome")
    for each in PARAMETERS:
        group.add_argument(
            f"--{each.name}",
            type=type(each.default),
            default=each.default,
            choices=each.choices,
            env_var=each.variable,
            help=each.told,
        )
