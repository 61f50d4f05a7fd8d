"""The page driven in a headless Chromium: one browser for all of them, and a page opened anew where state matters."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from awpbench.evaluation.statistics import mcnemar, paired_difference
from awpbench.leaderboard.columns import sorted_by
from awpbench.leaderboard.page import render
from awpbench.leaderboard.row import Board, Row, board_of
from awpbench.leaderboard.spreadsheet import csv_text
from awpbench.leaderboard.view import rankings
from awpbench.leaderboard.view import reported as reported_tables
from tests.leaderboard import crafted, hostile
from tests.leaderboard.test_page import CARD, reported, trained, without

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
PROGRAM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
ADVICE = "Rendering was performed in a subtree hidden by content-visibility"  # on speed; its coming depends on timing
ALERTED: list[str] = []  # what a page said that it should not: dialogs, errors, violations, requests


def foreign(number: int) -> Row:
    """A row of another net than ours, with numbers of its own."""
    draw = random.Random(number)
    attacks = {
        name: crafted.attack(name, draw.randint(found["n"] // 10, found["n"]), found["n"])
        for name, found in crafted.result()["attacks"].items()
    }
    attacks["autoattack"] |= {"complete": True}
    card = {
        **CARD,
        "name": f"Paper {number}",
        "additional_data": number % 2 == 0,
        "venue": ("ICML 2020", "")[number % 2],
    }
    return crafted.built(crafted.named(f"net {number}", attacks=attacks), card)


def board() -> Board:
    """One table of a few rows, one of reported rows, one of another data set with more rows than are laid out."""
    rows = [trained(), trained(**without()), *map(foreign, range(6))]
    quoted = [reported("One"), reported("Two", external="51.5", additional_data=False, unreliable=None)]
    return board_of(
        (*rows, *quoted, *(reported(f"Many{n:02}", dataset="cifar100", external=f"{n}.5") for n in range(60)))
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if PROGRAM is None:
        pytest.skip("there is no Chromium (Debian: apt install chromium, or set CHROMIUM)")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=PROGRAM, args=OPTIONS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(render(board()))
    return path.as_uri()


def opened(context: Any) -> Any:
    """A page that reports everything that must not happen."""
    page = context.new_page()
    page.set_default_timeout(5000)
    page.on("console", lambda message: ALERTED.append(message.text) if ADVICE not in message.text else None)
    page.on("pageerror", lambda error: ALERTED.append(str(error)))
    page.on("dialog", lambda dialog: (ALERTED.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: ALERTED.append(request.url) if not request.is_navigation_request() else None)
    return page


@pytest.fixture(scope="module")
def shared_page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)
    yield opened(context)
    context.close()


@pytest.fixture
def page(shared_page: Any, address: str) -> Iterator[Any]:
    """The page as it opens; whatever a test did, nothing may have been asked for, said or violated."""
    shared_page.goto("about:blank")
    shared_page.goto(address)
    ALERTED.clear()
    yield shared_page
    assert ALERTED == []


@contextlib.contextmanager
def in_context(browser: Any, **options: Any) -> Iterator[Any]:
    context = browser.new_context(**options)
    yield context
    context.close()


def tables(page: Any) -> list[str]:
    return page.evaluate("[...document.querySelectorAll('section.board:not(.gone) > h2')].map((h) => h.textContent)")


def until(page: Any, condition: str) -> None:
    """Wait for a condition in JavaScript: Playwright's own way needs an eval, which the page forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(condition)


def ids(page: Any, table: int = 0) -> list[str]:
    script = "(n) => [...document.querySelectorAll('.box')[n].querySelectorAll('tr.row')].map((r) => r.id.slice(4))"
    return page.evaluate(script, table)


def head(page: Any, label: str, table: int = 0) -> Any:
    return page.locator(".box").nth(table).locator("th").filter(has_text=label).first


def row(page: Any, name: str) -> Any:
    return page.locator(f'tr.row[id="row-{name}"]')


def expected(column: str) -> list[str]:
    (ranking,) = rankings(board())
    ranking = sorted_by(column.removeprefix("-"), ranking, backwards=column.startswith("-"))
    return [line.details.id for line in ranking.lines]


def test_without_scripts_every_row_and_its_details_are_there(browser: Any, address: str) -> None:
    with in_context(browser, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address)
        assert page.locator("tr.row:visible").count() == len(board().rows)
        assert page.locator("button:visible, input:visible, select:visible").count() == 0
        page.get_by_text("Details of net 1", exact=True).click()
        assert page.locator("pre:visible").all_inner_texts()[0].startswith("awpbench eval --ckpt 'net 1' --suite full")
        assert page.locator(".plot circle").first.is_visible()


@pytest.mark.parametrize(
    ("label", "column"), [("pgd-20", "pgd-20"), ("Standard accuracy", "clean"), ("Architecture", "architecture")]
)
def test_a_header_sorts_as_the_command_line_does_and_turns_round(page: Any, label: str, column: str) -> None:
    button = head(page, label).locator("button")
    button.click()
    assert ids(page) == expected(column)
    first = "ascending" if column == "architecture" else "descending"
    assert head(page, label).get_attribute("aria-sort") == first
    button.click()
    assert ids(page) == expected(f"-{column}")
    assert head(page, label).get_attribute("aria-sort") != first


def test_what_is_unknown_comes_last_either_way(page: Any) -> None:
    known = {line.details.id for ranking in rankings(board()) for line in ranking.lines if line.gain is not None}
    for _ in range(2):
        head(page, "AWP gain").locator("button").click()
        assert ids(page)[0] in known
    head(page, "Venue").locator("button").click()
    assert set(ids(page)[-3:]) == {found.awpbench.id for found in board().measured if found.venue == ""}


def test_search_finds_words_in_any_order_and_hides_tables_without_a_match(page: Any) -> None:
    page.locator("#search").fill("NET-3. lovelace")
    assert page.locator("#count").inner_text() == "1 of 70 rows"
    assert len(tables(page)) == 1
    page.locator("#search").fill("nothing of this kind")
    assert page.locator("#nothing").is_visible()
    assert [ids(page, table) for table in range(3)] == [[], [], []]
    page.locator("#reset").click()
    until(page, "document.querySelector('#count').textContent === '70 of 70 rows'")
    assert len(tables(page)) == 3


def test_the_links_to_tables_count_what_the_filters_leave(page: Any) -> None:
    page.locator('select[data-filter="dataset"]').select_option("cifar100")
    assert page.locator("nav span").all_inner_texts() == ["0", "0", "60"]
    assert page.locator("nav a.none").count() == 2
    page.locator('select[data-filter="dataset"]').select_option("")
    assert page.locator("nav span").all_inner_texts() == ["8", "2", "60"]
    assert page.locator("nav a.none").count() == 0


@pytest.mark.parametrize(
    ("key", "value", "count"),
    [
        ("dataset", "cifar100", 60),
        ("threat", "Linf", 70),
        ("defense", "at", 2),
        ("awp", "yes", 1),
        ("awp", "no", 1),
        ("extra", "yes", 3 + 1 + 60),
        ("architecture", "PreActResNet-18 (width 16)", 2),
    ],
)
def test_each_filter_keeps_the_rows_it_names(page: Any, key: str, value: str, count: int) -> None:
    page.locator(f'select[data-filter="{key}"]').select_option(value)
    assert page.locator("#count").inner_text() == f"{count} of 70 rows"
    until(page, f"document.querySelectorAll('.dot:not(.dim)').length >= {count}")


def test_a_row_opens_its_details_and_closes_them(page: Any) -> None:
    name = trained().awpbench.id
    row(page, name).get_by_role("button").click()
    facts = page.locator(".facts:visible")
    text = facts.inner_text()
    for part in ("awpbench train prn18", "Training configuration", "What AWP adds", "Hashes", "@article{", "e" * 64):
        assert part in text
    assert row(page, name).get_by_role("button").get_attribute("aria-expanded") == "true"
    row(page, name).get_by_role("button").click()
    assert facts.count() == 0


def test_two_rows_are_compared_image_by_image(page: Any) -> None:
    one, other = trained().awpbench.id, trained(**without()).awpbench.id
    row(page, one).get_by_role("checkbox").check()
    assert page.locator("#compare").is_hidden()
    row(page, other).get_by_role("checkbox").check()
    low, high = (f"{100 * end:+.2f}".replace("-", "\u2212") for end in paired_difference(15, 0, 300))
    cells = page.locator("#compare tbody tr").filter(has_text="autoattack").locator("td").all_inner_texts()
    assert cells == ["autoattack", "18.33", "13.33", "+5.00", f"[{low}, {high}]", CELL]
    text = page.locator("#compare").inner_text()
    assert "awp: true / not set" in text
    assert "wider than need be and does not show that there is no difference; `awpbench compare`" in text
    page.keyboard.press("Escape")
    assert page.locator("#compare").is_hidden()
    assert page.locator("input:checked").count() == 0


CELL = "paired: only A right on 15, only B on 0; p < 0.001"


def test_the_script_computes_what_python_does(page: Any) -> None:
    pairs = [(0, 0), (1, 0), (5, 5), (15, 0), (7, 22), (400, 450), (1000, 1300), (3000, 2500), (0, 1500)]
    for b, c in pairs:
        assert page.evaluate(f"awpbenchPage.mcnemar({b}, {c})") == pytest.approx(mcnemar(b, c), rel=1e-12, abs=1e-300)
        found = page.evaluate(f"awpbenchPage.pairedDifference({b}, {c}, 10000)")
        assert found == pytest.approx(paired_difference(b, c, 10000), rel=1e-12)
    wilsons = [[56, 70, *crafted.wilson(56, 70)], [48, 80, *crafted.wilson(48, 80)]]
    newcombe = page.evaluate("([a, b]) => awpbenchPage.unpairedDifference(a, b)", wilsons)
    assert newcombe == pytest.approx([0.0524, 0.3339], abs=5e-5)  # Newcombe 1998, table II (a), method 10
    one, other = trained().awpbench.outcomes, trained(**without()).awpbench.outcomes
    assert one is not None
    assert other is not None
    assert page.evaluate("([a, b]) => awpbenchPage.only(a, b)", [one.bits, other.bits]) == [15, 0]


def downloaded(page: Any, table: int) -> list[str]:
    with page.expect_download() as download:
        page.locator('[data-do="csv"]').nth(table).click()
    return Path(download.value.path()).read_text(encoding="utf-8").splitlines()


def test_the_csv_is_the_view_as_filtered_and_sorted(page: Any) -> None:
    page.locator("#search").fill("paper")
    head(page, "pgd-20").locator("button").click()
    header, *lines = downloaded(page, 0)
    columns = header.split(",")
    group = ["kind", "dataset", "norm", "eps", "suite", "series", "dialect", "ranked_by", "id"]
    assert columns[: len(group) + 4] == [*group, "rank_low", "rank_high", "model", "paper"]
    place = columns.index("pgd-20")
    assert columns[place : place + 5] == ["pgd-20", "pgd-20_low", "pgd-20_high", "pgd-20_n", "pgd-20_note"]
    assert [line.split(",")[8] for line in lines] == ids(page)
    best = max((found.awpbench for found in board().measured), key=lambda found: found.attacks["pgd-20"].correct)
    low, high = (f"{100 * end:.2f}" for end in best.attacks["pgd-20"].interval)
    assert lines[0].split(",")[place : place + 5] == [best.attacks["pgd-20"].percent, low, high, "10000", ""]
    gain = columns.index("gain")
    ours = next(line for line in lines if line.split(",")[8] == trained().awpbench.id)
    assert ours.split(",")[gain] == "5.00"


@pytest.mark.parametrize(("table", "known"), [(0, 57), (1, 15)])
def test_the_csv_of_the_page_says_what_that_of_the_command_line_says(page: Any, table: int, known: int) -> None:
    theirs = list(csv.DictReader(io.StringIO(csv_text(rankings(board()), reported_tables(board())))))
    found = {each["id"]: each for each in theirs}
    ours = list(csv.DictReader(downloaded(page, table)))
    both = [key for key in ours[0] if key in theirs[0]]
    assert len(both) == known
    named = {"architecture", "best_known"}  # the page writes RobustBench's
    unknown = {"venue", "defense", "selection", "audit"}  # the page says so in words or leaves it empty
    for line in ours:
        expected = found[line["id"]]
        same = [key for key in both if key not in unknown or expected[key] not in ("", "?")]
        same = [key for key in same if table == 1 or key not in named]
        assert [line[key] for key in same] == [expected[key] for key in same]
    assert [key for key in ours[0] if key not in theirs[0] and not key.endswith("_note")] == OWN[table]


OWN = [["paper"], ["paper", "unreliable", "claimed"]]


def test_the_keyboard_alone_sorts_opens_and_compares(page: Any) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("net")
    head(page, "pgd-20").locator("button").focus()
    page.keyboard.press("Enter")
    assert head(page, "pgd-20").get_attribute("aria-sort") == "descending"
    first = row(page, ids(page)[0])
    first.get_by_role("button").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Space")
    assert page.locator(".facts:visible").count() == 1
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert first.get_by_role("checkbox").is_checked()


def test_the_keyboard_goes_into_the_comparison_and_back_to_a_row_clear_of_it(page: Any) -> None:
    *_, one, other = ids(page)
    for name in (one, other):
        row(page, name).get_by_role("checkbox").focus()
        page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.id") == "compare"
    clear = f"document.getElementById('row-{other}').getBoundingClientRect().bottom <= "
    until(page, clear + "document.querySelector('#compare').getBoundingClientRect().top")
    room = page.evaluate("parseFloat(getComputedStyle(document.body).paddingBottom)")
    assert room > page.locator("#compare").bounding_box()["height"]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#compare").is_hidden()
    assert page.evaluate("document.activeElement.closest('tr').id") == f"row-{other}"


@pytest.mark.parametrize("state", ["row-rb.Many00", "open=rb.Many00"])
def test_an_address_of_a_row_far_down_leads_to_it(page: Any, address: str, state: str) -> None:
    page.goto("about:blank")
    page.goto(f"{address}#{state}")
    box = row(page, "rb.Many00").bounding_box()
    assert 0 <= box["y"] < 900 - box["height"]


def test_an_address_of_a_row_goes_before_the_filters(page: Any) -> None:
    page.locator("#search").fill("lovelace")
    page.evaluate("location.hash = 'row-rb.Many00'")
    until(page, "document.activeElement.closest('tr')?.id === 'row-rb.Many00'")
    assert page.locator("#search").input_value() == ""


def test_the_address_holds_the_state_and_brings_it_back(page: Any, address: str) -> None:
    one, other = trained().awpbench.id, trained(**without()).awpbench.id
    page.locator("#search").fill("cifar10")
    page.locator('select[data-filter="defense"]').select_option("at")
    head(page, "pgd-20").locator("button").click()
    head(page, "pgd-20").locator("button").click()
    row(page, one).get_by_role("button").click()
    row(page, other).get_by_role("checkbox").check()
    row(page, one).get_by_role("checkbox").check()
    state = page.evaluate("location.hash")
    before = page.locator("main").inner_text()
    page.goto("about:blank")
    page.goto(address + state)
    assert page.locator("main").inner_text() == before
    assert page.locator("#search").input_value() == "cifar10"
    assert head(page, "pgd-20").get_attribute("aria-sort") == "ascending"
    assert page.locator("#compare").is_visible()
    assert page.evaluate("location.hash") == state


@pytest.mark.parametrize(
    "state",
    [
        "q=%E0%A4%A&defense=<script>alert(1)</script>&sort=__proto__:constructor:back",
        "sort=x&sort=::&open=__proto__&open=constructor&compare=toString&compare=__proto__",
        "q=" + "x" * 5000 + "&defense[]=at&awp=%00&=&&&",
        "x=" + "y" * 100_000,
        "javascript:alert(1)",
        "row-<img src=x onerror=alert(1)>",
    ],
)
def test_a_hostile_address_changes_nothing_it_should_not(page: Any, address: str, state: str) -> None:
    page.goto("about:blank")
    page.goto(f"{address}#{state}")
    assert page.evaluate("document.documentElement.className") == "js ready"
    assert page.locator(".facts:visible").count() == 0
    assert page.locator("#compare").is_hidden()
    assert page.evaluate("document.querySelectorAll('script, img').length") == 2


def test_a_point_leads_to_its_row_also_far_down(page: Any) -> None:
    assert len(ids(page, 2)) < 60
    page.locator('.dot[data-id="rb.Many00"]').focus()
    assert page.locator("#tip").inner_text() == "Many00: clean 88.25, robust 0.50"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('tr').id") == "row-rb.Many00"
    assert row(page, "rb.Many00").is_visible()


def test_more_rows_follow_as_a_table_is_scrolled_and_all_on_demand(page: Any) -> None:
    until(page, "document.querySelectorAll('.box')[2].querySelectorAll('tr.row').length === 40")
    page.evaluate("document.querySelectorAll('.box')[2].scrollTop = 1e6")
    until(page, "document.querySelectorAll('.box')[2].querySelectorAll('tr.row').length === 60")
    assert ids(page, 2) == [f"rb.Many{number:02}" for number in range(59, -1, -1)]
    head(page, "Claimed", 2).locator("button").click()
    page.locator('[data-do="all"]').nth(2).click()
    assert len(ids(page, 2)) == 60


def luminance(colour: str) -> float:
    parts = [float(part) / 255 for part in colour.strip("rgb()").split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


COLOURS = """
() => [
  "body", ".about", ".lead", "a[href^=http]", ".tag", "th", "td .s", "td.none .v", "button", "figcaption"
].map((name) => {
  const element = document.querySelector(name);
  let behind = element;
  while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  return [name, getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
})
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_have_contrast_and_the_button_changes_them(browser: Any, address: str, scheme: str) -> None:
    with in_context(browser, color_scheme=scheme) as context:
        page = opened(context)
        page.goto(address)
        grounds = []
        for _ in range(2):
            for name, ink, ground in page.evaluate(COLOURS):
                light, dark = sorted([luminance(ink), luminance(ground)], reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, name
            grounds.append(luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) > 0.5)
            page.locator("#theme").click()
        assert grounds == [scheme == "light", scheme == "dark"]


def test_a_phone_scrolls_tables_and_not_the_page(browser: Any, address: str) -> None:
    name = trained().awpbench.id
    with in_context(browser, viewport={"width": 390, "height": 844}, has_touch=True) as context:
        page = opened(context)
        page.goto(f"{address}#open={name}&compare={name}&compare={trained(**without()).awpbench.id}")
        assert page.locator("#compare").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("document.querySelector('.box').scrollWidth") > 390
        cells = "[...document.querySelectorAll('#compare th, #compare td')].map((e) => e.getBoundingClientRect().right)"
        assert max(page.evaluate(cells)) <= 390
        assert page.evaluate("document.querySelector('#compare .scroll').scrollWidth") <= 390
    with in_context(browser, viewport={"width": 390, "height": 844}, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address)
        box = page.locator("html").bounding_box()
        assert box["width"] == 390


BROKEN = """
() => [...document.querySelectorAll(".facts pre span")].filter((word) => {
  const range = document.createRange();
  range.selectNodeContents(word);
  return word.textContent.length < 30 && new Set([...range.getClientRects()].map((line) => line.top)).size > 1;
}).map((word) => word.textContent)
"""


@pytest.mark.parametrize("width", [390, 1000])
def test_a_command_breaks_at_blanks_only(browser: Any, address: str, width: int) -> None:
    with in_context(browser, viewport={"width": width, "height": 844}) as context:
        page = opened(context)
        page.goto(f"{address}#open={trained().awpbench.id}")
        assert page.locator(".facts pre span").count() > 20
        assert page.evaluate(BROKEN) == []
        train, eval_, *_ = page.locator(".facts pre").first.inner_text().splitlines()
        assert (train[:19], eval_[:19]) == ("awpbench train prn1", "awpbench eval --ckp")


def test_print_lays_out_every_row(page: Any) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert sum(len(ids(page, table)) for table in range(3)) == 70
    page.emulate_media(media="print")
    assert page.locator("#tools").is_hidden()
    page.emulate_media(media="screen")


def test_hostile_text_runs_nowhere(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_bytes(render(hostile.board()))
    ALERTED.clear()
    with in_context(browser, accept_downloads=True) as context:
        page = opened(context)
        page.set_default_timeout(20000)
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('[data-do=all]').forEach((button) => button.click())")
        page.evaluate("document.querySelectorAll('[data-do=open]').forEach((button) => button.click())")
        page.evaluate(POINTED)
        assert page.locator(".facts").count() == page.locator("tr.row").count() > 70
        for payload in hostile.PAYLOADS[:12]:
            page.evaluate(
                "(text) => { const box = document.querySelector('#search'); box.value = text;"
                " box.dispatchEvent(new Event('input', {bubbles: true})); }",
                payload,
            )
        page.evaluate("document.querySelector('#reset').click()")
        assert page.evaluate("window.pwned") is None
        assert page.evaluate(ATTRIBUTES) == []
        assert page.evaluate("document.querySelectorAll('script, style, iframe, img, base, object, form').length") == 4
        linked = page.evaluate("[...document.links].map((a) => a.protocol)")
        assert set(linked) <= {"https:", "file:"}
        cells = [cell for table in range(3) for line in downloaded(page, table)[1:] for cell in line.split(",")]
        computed = [cell for cell in cells if cell.strip('" ')[:1] in {*"=+@", "\uff1d"}]
        assert computed == []
    assert ALERTED == []


POINTED = """
for (const dot of document.querySelectorAll(".dot")) dot.dispatchEvent(new Event("focusin", {bubbles: true}))
"""
ATTRIBUTES = """
[...document.querySelectorAll("*")].flatMap((e) => [...e.attributes].map((a) => a.name))
  .filter((name) => name.startsWith("on") || name === "srcdoc")
"""
