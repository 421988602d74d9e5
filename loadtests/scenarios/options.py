"""Parameters of the scenarios: on the command line, by environment, and in Locust's web page."""

from argparse import ArgumentParser


def add_options(parser: ArgumentParser) -> None:
    """Adds ours to Locust's own (`--users`, `--spawn-rate`, `--run-time`, `--host`, ...)."""
    group = parser.add_argument_group("Firstcome")
    for name, kind, default, text in (
        ("coupons", int, 500, "rush: coupons of the campaign"),
        ("stock", int, 100, "sale: units of the one product"),
        ("products", int, 100, "shopping, retries, soak: products on the shelf"),
        ("opens-in", float, 3.0, "rush, sale: seconds from when all users are there until the opening"),
        ("spread", float, 1.0, "rush, sale: seconds within which all users come, from the opening on"),
        ("think", float, 0.0, "seconds that a user thinks between two requests, half to one and a half of it"),
        ("wallet-users", int, 4, "charges: users that charge one balance at once"),
        ("copies", int, 4, "retries: how often each request is sent at once"),
        ("settle", float, 60.0, "seconds after the end until everything must be durable and add up"),
        ("lag-max", float, 0.0, "seconds that PostgreSQL may have been behind at any look; 0 only reports it"),
        ("run-name", str, "", "a name for the campaign and the products, instead of one by chance"),
    ):
        variable = f"LOADTEST_{name.upper().replace('-', '_')}"
        group.add_argument(f"--{name}", type=kind, default=default, env_var=variable, help=text)
    group.add_argument(
        "--audit",
        choices=("auto", "off"),
        default="auto",
        env_var="LOADTEST_AUDIT",
        help="run `firstcome audit` at the end where FIRSTCOME_REDIS_URL and FIRSTCOME_DATABASE_URL are set",
    )
