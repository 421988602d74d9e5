"""Whether a shop holds what its users were answered: read over HTTP, and by `firstcome audit` where that can reach."""

from __future__ import annotations

import os
import subprocess
import time
from argparse import Namespace
from dataclasses import dataclass, replace
from datetime import datetime

import gevent
import httpx

from api.commands.api import program
from loadtests.scenarios.plan import CAMPAIGN, CUT_SHORT, GIFT, PLENTY, SALE, STOCK_ITEM, WRONG_OUTCOME, Plan
from loadtests.scenarios.tally import Tally
from loadtests.scenarios.watch import Watch

BALANCES_MAX = 500
"""So many users' balances and coupons are read one by one."""
POLL_S = 0.25
AUDIT_S_MAX = 600.0
AUDIT_IS_CLEAN = 0
STORES = ("FIRSTCOME_REDIS_URL", "FIRSTCOME_DATABASE_URL")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was expected, and what was found; between both there is room for what is uncertain."""

    what: str
    expected: int
    found: int | None
    uncertain: int = 0
    detail: str = ""
    of_the_run: bool = False
    """It is about whether the run came to its end, not about what the shop holds."""

    @property
    def range(self) -> str:
        """What was expected, in words."""
        return f"{self.expected} and up to {self.uncertain} more" if self.uncertain else f"{self.expected}"

    @property
    def holds(self) -> bool:
        """Whether it was found as expected."""
        return self.found is not None and self.expected <= self.found <= self.expected + self.uncertain


def check(client: httpx.Client, plan: Plan, tally: Tally, watch: Watch, options: Namespace) -> list[Finding]:
    """Everything that can be told of the run, once what it did is durable."""
    deadline = time.monotonic() + options.settle
    findings = [
        _durable(client, deadline),
        *_coupons(client, plan, tally),
        *_stock(client, plan, tally),
        *_users(client, plan, tally),
        Finding("answers that contradict each other", 0, len(tally.broken), detail="; ".join(tally.broken[:3])),
        _alarms(client, plan.begun_at),
    ]
    if options.lag_max:
        late = watch.lag_ms_max > options.lag_max * 1000
        findings.append(Finding(f"looks at a lag of more than {options.lag_max:g} s", 0, int(late), detail=str(watch)))
    if options.audit != "off" and not left_out():
        findings.append(_audit())
    return findings


def left_out() -> str:
    """Why the audit cannot be run; nothing where it can."""
    lacking = [name for name in STORES if not os.environ.get(name)]
    return f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not set" if lacking else ""


def _durable(client: httpx.Client, deadline: float) -> Finding:
    """Waits until PostgreSQL has everything."""
    finding = Finding("events that are not durable", 0, None)
    while not finding.holds and time.monotonic() < deadline:
        answer = client.get("/admin/v1/status")
        if answer.is_success:
            finding = replace(finding, found=answer.json()["backlog"])
        if not finding.holds:
            gevent.sleep(POLL_S)
    return finding


def _coupons(client: httpx.Client, plan: Plan, tally: Tally) -> list[Finding]:
    findings = []
    for campaign in [plan.campaign] * (CAMPAIGN in plan.needs) + [plan.gift] * (GIFT in plan.needs):
        numbers = tally.coupons.get(campaign, {})
        on_record = client.get(f"/v1/campaigns/{campaign}").raise_for_status().json()
        quantity = on_record["quantity"]
        issued = quantity - on_record["remaining"]
        findings += [
            Finding(f"{campaign}: coupons issued", len(numbers), issued, tally.uncertain[f"campaign:{campaign}"]),
            Finding(f"{campaign}: issue numbers, each given once", len(numbers), len(set(numbers.values()))),
            Finding(
                f"{campaign}: issue numbers beyond its quantity of {quantity}", 0,
                sum(n > quantity for n in (*numbers.values(), issued)),
            ),
        ]  # fmt: skip
        if campaign == plan.campaign:
            asked, doubt = tally.asked[campaign], tally.uncertain[f"campaign:{campaign}"]
            due = min(asked, quantity)
            what = f"{campaign}: coupons for the {asked} users who asked for one of {quantity}"
            findings.append(Finding(what, max(0, due - doubt), len(numbers), min(due, doubt) + doubt))
            findings.append(_asked(campaign, asked + doubt))
        if campaign == plan.campaign and any(name.endswith("coupons-exhausted") for name in tally.refused):
            what = f"{campaign}: coupons left though somebody was told that none are"
            findings.append(Finding(what, 0, on_record["remaining"]))
    if findings:
        what = "users who were answered two coupons of one campaign"
        findings.append(Finding(what, 0, len(set(tally.issued_twice))))
    return findings


def _asked(what: str, asked: int) -> Finding:
    return Finding(f"{what}: runs in which nobody asked for it", 0, int(not asked), of_the_run=True)


def _stock(client: httpx.Client, plan: Plan, tally: Tally) -> list[Finding]:
    findings = []
    if SALE in plan.needs:
        of_sale = _units(client, plan.sale, plan.stock, tally)
        beyond = max(0, (of_sale.found or 0) - plan.stock)
        asked, doubt = tally.asked[plan.sale], of_sale.uncertain
        due = min(asked, plan.stock)
        what = f"{plan.sale}: units for the {asked} users who asked for one of {plan.stock}"
        findings += [
            of_sale,
            Finding(f"{plan.sale}: units sold beyond {plan.stock}", 0, beyond),
            Finding(what, max(0, due - doubt), of_sale.found, min(due, doubt) + doubt),
            _asked(plan.sale, asked + doubt),
        ]
    shelf = [_units(client, product, PLENTY, tally) for product in plan.shelf()]
    if shelf:
        wrong = [f"{each.what}: {each.range}, found {each.found}" for each in shelf if not each.holds]
        what = f"of {len(shelf)} products, those of which other units are gone than orders were answered"
        findings.append(Finding(what, 0, len(wrong), detail="; ".join(wrong[:3])))
    return findings


def _units(client: httpx.Client, product: str, quantity: int, tally: Tally) -> Finding:
    """The units of a product in orders that stand, by what is left of it."""
    name = f"{product}/{STOCK_ITEM}"
    available = client.get(f"/v1/products/{product}").raise_for_status().json()["available"]
    return Finding(
        f"{product}: units in orders", tally.units[name], quantity - available, tally.uncertain[f"stock:{name}"]
    )


def _users(client: httpx.Client, plan: Plan, tally: Tally) -> list[Finding]:
    """Balances and coupons of users, as far as all that they asked was answered."""
    certain = [user for user in sorted(tally.balances) if not tally.uncertain[f"user:{user}"]][:BALANCES_MAX]
    wrong = []
    for user in certain:
        balance = client.get(f"/v1/users/{user}/balance").raise_for_status().json()["balance"]
        if balance != tally.balances[user]:
            wrong.append(f"{user} has {balance} and not {tally.balances[user]}")
    findings = []
    if certain:
        what = f"of {len(certain)} users, those whose balance is not what they were answered"
        findings.append(Finding(what, 0, len(wrong), detail="; ".join(wrong[:3])))
    winners = sorted(tally.coupons.get(plan.campaign, {}).items())[:BALANCES_MAX]
    if winners:
        odd = [user for user, number in winners if _coupon_numbers(client, user, plan.campaign) != [number]]
        text = f"of {len(winners)} users with a coupon, those whose list shows another or several"
        findings.append(Finding(text, 0, len(odd), detail="; ".join(odd[:3])))
    return findings


def _coupon_numbers(client: httpx.Client, user: str, campaign: str) -> list[int]:
    answer = client.get(f"/v1/users/{user}/coupons", params={"limit": 100}).raise_for_status()
    return [coupon["issue_number"] for coupon in answer.json()["items"] if coupon["campaign_id"] == campaign]


def _alarms(client: httpx.Client, since: float) -> Finding:
    answer = client.get("/admin/v1/alarms", params={"state": "open"}).raise_for_status()
    alarms = [
        f"{alarm['kind']}: {alarm['subject']}"
        for alarm in answer.json()["items"]
        if datetime.fromisoformat(alarm["raised_at"]).timestamp() >= since
    ]
    return Finding("alarms raised and still open", 0, len(alarms), detail="; ".join(alarms[:3]))


def _audit() -> Finding:
    """`firstcome audit`, as an operator would run it."""
    done = subprocess.run([*program(), "audit"], capture_output=True, text=True, timeout=AUDIT_S_MAX, check=False)
    detail = "" if done.returncode == AUDIT_IS_CLEAN else (done.stdout + done.stderr)[-2_000:]
    return Finding("exit code of `firstcome audit`", AUDIT_IS_CLEAN, done.returncode, detail=detail)


def printed(plan: Plan, tally: Tally, watch: Watch, findings: list[Finding]) -> str:
    """The outcome as a person reads it."""
    lines = [f"\nOutcome of run {plan.run}\n", "  done"]
    lines += [f"    {count:>10,}  {name}" for name, count in sorted(tally.accepted.items())] or ["    nothing"]
    lines += ["  refused, as the shop may"]
    lines += [f"    {count:>10,}  {name}" for name, count in sorted(tally.refused.items())] or ["    nothing"]
    lines += ["  seen", f"    {watch}", "  checked"]
    for finding in findings:
        sign = "✓" if finding.holds else "✗"
        lines.append(f"    {sign} {finding.what}: expected {finding.range}, found {finding.found}")
        if finding.detail and not finding.holds:
            lines.append(f"      {finding.detail}")
    if why := left_out():
        lines.append(f"    · `firstcome audit` is left out: {why}")
    lines.append(f"  {verdict(findings)[0]}\n")
    return "\n".join(lines)


def verdict(findings: list[Finding]) -> tuple[str, int | None]:
    """All findings in a line, and the exit code that says the same; None where nothing is against the run."""
    broken = [finding for finding in findings if not finding.holds]
    if any(not finding.of_the_run for finding in broken):
        return f"The outcome is WRONG: {len(broken)} of {len(findings)} checks fail.", WRONG_OUTCOME
    if broken:
        return "The run was CUT SHORT: nothing is wrong in what was done, and not all of it was done.", CUT_SHORT
    return "The outcome is right.", None
