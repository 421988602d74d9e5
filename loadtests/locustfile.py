"""Load tests of a running shop, for Locust: `locust -f loadtests/locustfile.py --tags rush --host http://...`.

Scenarios are chosen by tag (`--tags rush`) or by name (`CouponRush`); `loadtests/README.md` tells of each. At the end
the outcome is checked: exit code 3 says that the shop does not hold what it answered.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from locust import events
from locust.env import Environment
from locust.runners import WorkerRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loadtests.scenarios.customer import Customer
from loadtests.scenarios.options import add_options
from loadtests.scenarios.rush import CouponRush, LimitedSale
from loadtests.scenarios.session import Session
from loadtests.scenarios.shopping import Browse, Shopping, Soak
from loadtests.scenarios.storms import ChargeStorm, RetryStorm

SCENARIOS: tuple[type[Customer], ...] = (
    CouponRush,
    LimitedSale,
    Shopping,
    ChargeStorm,
    Browse,
    RetryStorm,
    Soak,
)
events.init_command_line_parser.add_listener(add_options)


@events.init.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """Keeps the scenarios that were asked for, the usual mix where none was, and gives their users the session."""
    options = environment.parsed_options
    tags = set(options.tags or ())
    if unknown := tags - {scenario.scenario for scenario in SCENARIOS}:
        names = ", ".join(scenario.scenario for scenario in SCENARIOS)
        logging.getLogger("firstcome").error("No scenario is called %s; there are %s", ", ".join(unknown), names)
        raise SystemExit(2)
    if isinstance(environment.runner, WorkerRunner):
        chosen = SCENARIOS  # the master says which
    elif tags:
        chosen = tuple(each for each in SCENARIOS if each.scenario in tags)
    else:
        named = options.user_classes or [Shopping.__name__]
        chosen = tuple(each for each in SCENARIOS if each.__name__ in named)
    environment.user_classes[:] = chosen
    # A tag stands for a scenario with all of its tasks, so Locust has none of them to leave out.
    options.tags = None
    Customer.session = Session(
        environment,
        needs={need for each in chosen for need in each.needs},
        one_shot=all(each.one_shot for each in chosen),
    )
