"""The figures that the READMEs show, in the language of each: what is accepted and durable a second, and where."""

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from loadtests import traffic
from loadtests.systems import BASELINES, SYSTEMS, Firstcome, OneScript, RedisLocks, RowLocks
from loadtests.tables import Found, counted, markdown, middle, ratios_over

BEGIN, END = "<!-- figures of loadtests/results/official.json: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True, slots=True)
class Language:
    """How a README tells them. ``titles``: of paths and systems by name, where they are not the titles of their own.

    ``machine``: a sentence with places for ``cores``, ``cpu`` and ``memory_gib``. ``never_durable``: the cell of a
    system that has no durable answer.
    """

    machine: str
    never_durable: str
    titles: Mapping[str, str] = field(default_factory=dict)


ENGLISH = Language(
    "Measured on {cores} cores of {cpu} with {memory_gib} GiB, which servers, load generator and whatever else ran "
    "there shared, so compare along a row.",
    "never durable",
)
KOREAN = Language(
    "{cpu} 코어 {cores}개, 메모리 {memory_gib} GiB에서 쟀습니다. 서버와 부하 생성기, 그때 돌던 다른 프로그램이 "
    "모두 그 코어를 나누어 썼으니, 같은 줄 안에서 비교하세요.",
    "영속되지 않음",
    {
        traffic.COUPON.name: "쿠폰 발급",
        traffic.COUPON_DURABLE.name: "쿠폰 발급, PostgreSQL에 들어간 뒤 응답",
        traffic.CHECKOUT.name: "주문과 결제, 상품 1,000개 중 2개",
        traffic.CHECKOUT_HOT.name: "주문과 결제, 모두 같은 상품",
        RedisLocks.name: "Redis 락",
        OneScript.name: "Lua 스크립트 하나, 영속 없음",
    },
)
READMES: Mapping[str, Language] = {"README.md": ENGLISH, "docs/README.ko.md": KOREAN}


def headline(results: Found, language: Language = ENGLISH) -> str:
    """The table: what is accepted and durable a second, beside the baselines, and how many times theirs it is."""
    rows = []
    for path in traffic.COMPARED:
        rates = [middle(results, system.name, path.name, counted) for system in SYSTEMS]
        cells = ["" if each is None else f"{each:,.0f}/s" for each in rates]
        for place, system in enumerate(SYSTEMS):
            if found := ratios_over(results, path.name, system.name) if system in BASELINES else []:
                cells[place] += f" ({statistics.median(found):.1f} x)"
        rows.append([language.titles.get(path.name, path.title), *cells])
        if path is traffic.COUPON:
            rows += _durable_answers(results, language)
    return markdown(("", *(language.titles.get(system.name, system.title) for system in SYSTEMS)), rows)


def _durable_answers(results: Found, language: Language) -> list[list[str]]:
    """The row in which Firstcome answers as row locks do, after the commit; none where that was not measured."""
    path = traffic.COUPON_DURABLE
    ours = middle(results, Firstcome.name, path.name, counted)
    theirs = middle(results, RowLocks.name, traffic.COUPON.name, counted)
    if ours is None:
        return []
    cells = {system.name: language.never_durable for system in SYSTEMS}
    cells[Firstcome.name] = f"{ours:,.0f}/s"
    cells[RowLocks.name] = f"{theirs:,.0f}/s ({ours / theirs:.1f} x)" if theirs else ""
    return [[language.titles.get(path.name, path.title), *cells.values()]]


def with_headline(readme: str, results: Found, language: Language) -> str:
    """A README with its headline table anew, and the machine named under it."""
    block = f"{BEGIN}\n{headline(results, language)}\n\n{language.machine.format_map(results['machine'])}\n{END}"
    found = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    written, places = re.subn(found, lambda _: block, readme, flags=re.DOTALL)
    if places != 1:
        raise ValueError(f"a README has one place for the table, between {BEGIN} and {END}; this one has {places}")
    return written
