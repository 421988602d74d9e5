"""Parameters of the scenarios: on the command line, by environment, and in Locust's web page."""

import math
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass

GREATEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of them: a number or a text, or one of ``choices``."""

    name: str
    default: int | float | str
    told: str
    choices: tuple[str, ...] | None = None
    least: int = 0

    def read(self, text: str) -> int | float | str:
        """The value that a text says. Raises ArgumentTypeError."""
        if isinstance(self.default, str):
            return text
        try:
            value = type(self.default)(text)
        except ValueError:
            value = math.nan
        if not self.least <= value <= GREATEST:
            raise ArgumentTypeError(f"{text} is no number from {self.least} to {GREATEST:,}")
        return value

    @property
    def variable(self) -> str:
        """The environment variable that sets it too."""
        return f"LOADTEST_{self.name.upper().replace('-', '_')}"


PARAMETERS = (
    Parameter("coupons", 500, "rush: coupons of the campaign", least=1),
    Parameter("impatient", 10, "rush: users of a hundred who ask twice at the same moment"),
    Parameter("stock", 100, "sale: units of the one product", least=1),
    Parameter("products", 100, "shopping, retries, soak: products on the shelf", least=1),
    Parameter("opens-in", 3.0, "rush, sale: seconds from when all users are there until the opening"),
    Parameter("spread", 1.0, "rush, sale: seconds within which all users come, from the opening on"),
    Parameter("think", 0.0, "seconds that a user thinks between two requests, half to one and a half of it"),
    Parameter("wallet-users", 4, "charges: users that charge one balance at once", least=1),
    Parameter("copies", 4, "retries: how often each request is sent at once", least=1),
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
            type=each.read,
            default=each.default,
            choices=each.choices,
            env_var=each.variable,
            help=each.told,
        )
