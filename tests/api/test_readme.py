"""The README, the page of `/docs` and the file of requests do what they say when they are pasted."""

import html
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.authentication import make_token, read_keys
from api.commands import COMMANDS
from api.commands.demo import make_demo
from api.operations import OPERATIONS
from api.settings import ApiSettings
from api.walkthrough import STEPS
from tests.api.generated_client import GeneratedClient
from tests.contract.http_requests import read_http
from tests.pasting import SHELLS, pasted, run_in
from tests.running_shop import RunningShop, eventually
from tests.servers import Databases
from tests.shop_servers import opened_shop

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
KOREAN = DOCS / "README.ko.md"
READMES = (README, KOREAN)


def block() -> str:
    """The commands of the first purchase, as they stand."""
    (found,) = re.findall(r"<!-- tests/api/test_readme.py [^\n]*-->\n```bash\n(.*?)```", README.read_text(), re.DOTALL)
    return str(found)


GUARDED = ApiSettings(token_secret="the-secret-of-these-tests-is-long-enough")


def token_of(user: str, *, is_operator: bool = False) -> str:
    keys = read_keys(GUARDED)
    assert keys is not None
    return make_token(keys, GUARDED, user, is_operator=is_operator, valid_s=600)


@pytest.fixture(scope="module")
def guarded_demo(databases: Databases) -> Iterator[RunningShop]:
    """The same in a shop that asks for tokens."""
    with opened_shop(databases, token_secret=GUARDED.token_secret) as shop:
        headers = {"Authorization": f"Bearer {token_of('operator', is_operator=True)}"}
        with httpx.Client(base_url=shop.url(), headers=headers) as client:
            assert make_demo(client)
        yield shop


@pytest.fixture(scope="module")
def demo(databases: Databases) -> Iterator[RunningShop]:
    """A shop with the demo's catalogue, as `firstcome up` makes it."""
    with opened_shop(databases) as shop:
        with httpx.Client(base_url=shop.url()) as client:
            assert make_demo(client)
        yield shop
        shop.assert_conserved()


@pytest.mark.requirement("R0.1", "R3.9", "R5.1")
def test_the_first_purchase_works_as_it_is_written(demo: RunningShop, tmp_path: Path) -> None:
    for shell in SHELLS:  # pasted twice, it is another user's purchase
        printed = pasted(block(), tmp_path, shell=shell, FIRSTCOME_URL=demo.url())
        assert "/problems/" not in printed
        for expected in (
            '"balance":100000',
            '"issue_number"',
            '"status":"awaiting_payment"',
            '"discount":6000',
            '"status":"completed"',
            '"balance":46000',
            '"quantity_sold"',
        ):
            assert expected in printed


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_first_purchase_works_with_a_token_and_stops_with_a_message_without(
    shell: Sequence[str], guarded_demo: RunningShop, tmp_path: Path
) -> None:
    refused = run_in(shell, block(), tmp_path, FIRSTCOME_URL=guarded_demo.url())
    assert refused.returncode != 0
    assert "/problems/not-authenticated" in refused.stderr
    assert "coupon: was not given" in refused.stderr
    assert "/orders" not in refused.stdout
    user = f"ann-{shell[0]}"
    known = {"FIRSTCOME_USER": user, "FIRSTCOME_TOKEN": token_of(user)}
    printed = pasted(block(), tmp_path, shell=shell, FIRSTCOME_URL=guarded_demo.url(), **known)
    assert '"status":"completed"' in printed
    assert '"balance":46000' in printed


def member(answer: Any, path: str) -> Any:
    for name in path.split("."):
        answer = answer[name]
    return answer


def test_the_purchase_in_the_page_of_docs_works_as_it_is_shown(demo: RunningShop, tmp_path: Path) -> None:
    """Each step prints its answer and its status, and they are those that the page shows."""
    page = html.unescape(httpx.get(f"{demo.url()}/docs").text)
    typed = re.findall(r'<pre class="ask"><code>(.*?)</code></pre>', page, re.DOTALL)
    shown = re.findall(r'<pre class="answer"><code>(.*?)</code></pre>', page, re.DOTALL)
    preparation, steps = typed[0], typed[2 : 2 + len(STEPS)]
    assert steps == [step.command for step in STEPS]
    script = "\n\n".join([preparation, *steps]).replace("http://127.0.0.1:8000", demo.url())

    lines = pasted(script, tmp_path).splitlines()

    assert len(lines) == 2 * len(STEPS)
    for step, answer, status, said in zip(STEPS, lines[::2], lines[1::2], shown, strict=False):
        assert status == str(step.status), answer
        assert {path: member(json.loads(answer), path) for path in step.shown} == dict(step.shown), step.name
        assert said == step.answer


def test_what_the_page_of_docs_says_to_ask_is_answered_from_above_to_below(demo: RunningShop, tmp_path: Path) -> None:
    page = httpx.get(f"{demo.url()}/docs").text
    asked = [
        html.unescape(text) for text in re.findall(r'<h4>Ask</h4><pre class="ask"><code>(.*?)</code>', page, re.DOTALL)
    ]
    assert len(asked) == len(OPERATIONS)
    failing = 'curl() { command curl --fail-with-body "$@"; }'
    late = next(number for number, text in enumerate(asked) if "/admin/v1/deliveries" in text)
    pasted("\n".join([failing, *asked[:late]]), tmp_path)
    eventually(lambda: deliveries(demo) > 1, what="the paid orders wait for the data platform")
    pasted("\n".join([failing, *asked[late:]]), tmp_path)
    charging = asked[1]
    first, again = pasted("\n".join([charging, charging.partition("\n")[2]]), tmp_path).splitlines()
    assert first.partition('"durable"')[0] == again.partition('"durable"')[0]  # the key was made once


def deliveries(shop: RunningShop) -> int:
    return len(shop.client().get("/admin/v1/deliveries").json()["items"])


def test_the_purchase_in_the_file_of_requests_works(demo: RunningShop) -> None:
    variables, requests = read_http((DOCS / "firstcome.http").read_text())
    named = [request for request in requests if request.name]
    answers: dict[str, Any] = {}
    for step, request in zip(STEPS, named, strict=True):
        asked = request.resolved({**variables, "shop": ""}, answers)
        answer = demo.client().request(asked.method, asked.url, headers=asked.headers, content=asked.body or None)
        assert answer.status_code == step.status, answer.text
        assert ("Idempotent-Replayed" in answer.headers) is step.again
        assert {path: member(answer.json(), path) for path in step.shown} == dict(step.shown)
        answers[request.name] = answer.json()


def test_a_client_generated_from_the_specification_makes_the_first_purchase(demo: RunningShop, tmp_path: Path) -> None:
    made = GeneratedClient(tmp_path, httpx.get(f"{demo.url()}/openapi.json").content)
    models = made.models

    def ask(tag: str, name: str, *ids: str, **arguments: Any) -> Any:
        with made.client(demo.url()) as client:
            return made.operation(tag, name).sync(*ids, client=client, **arguments)

    charge = models.ChargeRequest(amount=100_000)
    charged = [ask("balance", "charge_balance", "gen", body=charge, idempotency_key="k") for _ in range(2)]
    assert [(answer.balance, type(answer)) for answer in charged] == [(100_000, models.Charge)] * 2
    product = ask("products", "get_product", "t-shirt")
    assert "M" in {item.stock_id for item in product.stock}

    wanted = models.CouponRequest(campaign_id="welcome")
    coupon = ask("coupons", "issue_coupon", "gen", body=wanted)
    assert ask("coupons", "get_coupon", "gen", coupon.coupon_id).state == "valid"
    again = ask("coupons", "issue_coupon", "gen", body=wanted)
    assert (type(again), again.coupon_id) == (models.CouponAlreadyIssuedProblem, coupon.coupon_id)

    lines = [
        models.OrderLineRequest(product_id="t-shirt", stock_id="M", quantity=2),
        models.OrderLineRequest(product_id="cap", quantity=1),
    ]
    request = models.OrderRequest(lines=lines, coupon_id=coupon.coupon_id)
    order = ask("orders_and_payment", "place_order", "gen", body=request)
    assert (order.status, order.subtotal, order.discount, order.total) == ("awaiting_payment", 60_000, 6_000, 54_000)
    second = ask("orders_and_payment", "place_order", "gen", body=request)
    assert (type(second), second.order_id) == (models.OrderInProgressProblem, order.order_id)
    assert ask("orders_and_payment", "pay_order", "gen", order.order_id).payment.status == "paid"
    assert ask("balance", "get_balance", "gen").balance == 46_000
    eventually(
        lambda: "t-shirt" in {item.product_id for item in ask("products", "list_best_sellers").items},
        what="the order is counted",
    )


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.name)
def test_every_command_is_in_the_table(readme: Path) -> None:
    assert re.findall(r"^\| `firstcome (\S+)` \|", readme.read_text(), re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("readme", READMES, ids=lambda readme: readme.name)
def test_every_document_that_it_points_to_is_there(readme: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", readme.read_text())
    assert targets
    assert [target for target in targets if not (readme.parent / target).exists()] == []


def test_the_korean_readme_has_the_same_purchase() -> None:
    (command,) = re.findall(r"```bash\n(.*?)```", KOREAN.read_text(), re.DOTALL)
    assert command == block()
