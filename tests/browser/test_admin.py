"""The admin page in Chromium: its numbers are those of /metrics, its charts move, and it comes back.

What must not live here: what /live says (tests/admin/test_live.py), who may ask (tests/admin/test_authorization.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support.harness import ECHO, Daemon, free_port, require, wait_until
from tests.support.patience import PATIENCE
from tidegate import connect
from tidegate.admin.health import LIVE_SECONDS

pytestmark = pytest.mark.slow  # processes and pages: CI runs them, and who works on these

CHARTS = ("connections", "messages", "latency", "ends")
TOKEN = "a/token+for~tests-0123=="


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon of its own for each test, because they count and kill."""
    with Daemon(ECHO, workers=2) as daemon:
        yield daemon


@pytest.fixture
def page(daemon: Daemon, context: BrowserContext) -> Page:
    """The page, live. `page.problems` has what the console complained of, `page.asked` what was asked for."""
    return opened(context, f"http://{daemon.admin}/")


def opened(context: BrowserContext, url: str, link: str = "live") -> Page:
    page = context.new_page()
    problems: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda websocket: asked.append(websocket.url))
    page.problems, page.asked = problems, asked  # type: ignore[attr-defined]
    page.goto(url)
    expect(page.locator("#link")).to_have_text(link)
    return page


# As the operating guide has it, but for places and ports; "without" is for a page that has no slash at its end.
NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1; {user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade;
        proxy_set_header Host $http_host;
        location /ops/tidegate/ {{ proxy_pass http://{admin}/; }}
        location = /without {{ proxy_pass http://{admin}/; }}
        location /without/ {{ proxy_pass http://{admin}/; }}
        location / {{ return 418; }}
    }}
}}
"""


@contextlib.contextmanager
def proxied(daemon: Daemon, folder: Path) -> Iterator[str]:
    """An nginx in front of the admin address, and where it is."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    require(program, "nginx")
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    text = NGINX.format(folder=folder, port=port, admin=daemon.admin, user=user)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    process = subprocess.Popen([str(program), "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:

        def listens() -> bool:
            with socket.socket() as probe:
                return process.poll() is None and probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens, "nginx listens")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def clients(uri: str, number: int, messages: int) -> Iterator[None]:
    """So many clients; within the context each has had its messages echoed, and is still connected."""
    ready, done = threading.Event(), threading.Event()

    async def client(arrived: list[int]) -> None:
        async with connect(uri) as websocket:
            for i in range(messages):
                await websocket.send("x" * i)
                await websocket.recv()
            arrived.append(1)
            if len(arrived) == number:
                ready.set()
            await asyncio.to_thread(done.wait)

    async def all_of_them() -> None:
        arrived: list[int] = []
        await asyncio.gather(*(client(arrived) for _ in range(number)))

    thread = threading.Thread(target=asyncio.run, args=(all_of_them(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield
    finally:
        done.set()
        thread.join()


def rows(page: Page, table: str) -> dict[str, list[str]]:
    """The rows of a table by their head."""
    found = page.locator(f"#{table} tr").all()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in found}


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_numbers_are_those_of_metrics(page: Page, daemon: Daemon) -> None:
    with clients(daemon.uri, 5, 41):
        expect(page.locator("#chart-connections .big")).to_have_text("5")
        expect(page.locator("#totals tr", has_text="Messages sent").locator("td").first).to_have_text("205")
        metrics = daemon.metrics()
        totals = rows(page, "totals")
        assert number(totals["Messages received"][0]) == metrics.total("tidegate_messages_received_total") == 205
        assert number(totals["Connections accepted"][0]) == metrics.total("tidegate_connections_accepted_total") == 5
        for name, metric in (("Received", "received"), ("Sent", "sent")):
            exact = page.locator("#totals tr", has=page.get_by_text(name, exact=True)).locator("td").first
            assert number(exact.get_attribute("title") or "") == metrics.total(f"tidegate_{metric}_bytes_total")
        for slot, cells in rows(page, "worker-rows").items():
            assert cells[0] == "ready"
            assert number(cells[1]) == metrics.total("tidegate_connections", worker=slot)
        assert rows(page, "handshakes") == {"ok": ["5"]}
    expect(page.locator("#closes tr")).to_have_count(1)
    expect(page.locator("#closes-by")).to_have_text("0 by us, 5 by clients, 0 cut")
    for code, cells in rows(page, "closes").items():
        assert number(cells[-1]) == daemon.metrics().total("tidegate_closes_total", code=code) == 5
    assert page.problems == []  # type: ignore[attr-defined]


@pytest.mark.slow
def test_charts_move(page: Page, daemon: Daemon) -> None:
    lines = {name: page.locator(f"#chart-{name} path").last for name in CHARTS[:3]}
    with clients(daemon.uri, 3, 10):
        expect(page.locator("#chart-connections svg")).to_have_attribute("aria-label", re.compile(r"now 3;"))
        before = {name: line.get_attribute("d") for name, line in lines.items()}
        for name, line in lines.items():
            expect(line).not_to_have_attribute("d", before[name] or "")
    expect(page.locator("#chart-ends .key:visible")).to_have_text(re.compile("^1000 "))
    page.locator("#chart-messages .plot").hover(position={"x": 200, "y": 20})
    expect(page.locator("#chart-messages .axis span").last).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    assert page.problems == []  # type: ignore[attr-defined]


@pytest.mark.slow
def test_reconnects_after_the_admin_process_is_killed(page: Page, daemon: Daemon) -> None:
    expect(page.locator("#events li").first).to_be_visible()
    page.wait_for_function("() => points.length >= 3")
    oldest = page.evaluate("() => points[0].time")
    events = page.locator("#events li").all_inner_texts()
    page.evaluate(
        "() => { window.said = []; new MutationObserver(() => said.push(document.getElementById('link').textContent))"
        ".observe(document.getElementById('link'), {childList: true}) }"
    )
    (admin,) = (pid for pid, title in daemon.titles().items() if title.startswith("tidegate: admin"))
    os.kill(admin, signal.SIGKILL)
    page.wait_for_function("() => said.includes('connection lost, trying again') && said.at(-1) === 'live'")
    expect(page.locator("body")).not_to_have_attribute("data-stale", "")
    assert page.evaluate("() => points[0].time") == oldest  # what the page remembers it keeps
    assert set(events) <= set(page.locator("#events li").all_inner_texts())
    assert all("WebSocket" in problem for problem in page.problems)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_says_what_happens(page: Page, daemon: Daemon) -> None:
    events = page.locator("#events")
    expect(events).to_have_attribute("aria-live", "polite")
    daemon.signal(signal.SIGHUP)
    expect(events).to_contain_text("reload done")
    wait_until(lambda: len(daemon.workers()) == 2, "the old workers have ended")
    os.kill(daemon.workers()[0], signal.SIGKILL)
    expect(events.locator("li.warning")).to_contain_text("worker 0 was killed, perhaps by the out-of-memory killer")
    expect(page.locator("#chart-connections .mark.warning")).to_have_count(1)
    times = page.locator("#events time").evaluate_all("(all) => all.map((one) => one.dateTime)")
    assert times == sorted(times, reverse=True)
    with clients(daemon.uri, 1, 1):
        daemon.signal(signal.SIGSTOP, daemon.workers()[1])
        expect(page.locator("#worker-rows")).to_contain_text("blocked")
        daemon.signal(signal.SIGCONT, daemon.workers()[1])
    assert page.problems == []  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_supervisor_that_is_stuck(page: Page) -> None:
    """As /livez says it: after ten seconds, which this test does not wait for."""
    expect(page.locator("#state")).to_have_text("ready")
    shown = page.evaluate(f"""() => {{
        const seen = [];
        for (const tick_age of [{LIVE_SECONDS} - 0.1, {LIVE_SECONDS}]) {{
            show({{...latest, tick_age}});
            seen.push(document.getElementById("state").textContent);
        }}
        return seen;
    }}""")
    assert shown == ["ready", "stuck: the supervisor has not run for 10 s"]


@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"])
@pytest.mark.parametrize(
    "width", [320, pytest.param(390, marks=pytest.mark.slow), pytest.param(1280, marks=pytest.mark.slow)]
)
def test_widths_and_colours(browser: Browser, daemon: Daemon, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    with contextlib.closing(context), clients(daemon.uri, 2, 5):
        page = opened(context, f"http://{daemon.admin}/")
        expect(page.locator("#chart-connections .big")).to_have_text("2")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        for cell in page.locator("main h2:visible, main caption:visible, .big:visible").all():
            box = cell.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        for shown in ("body", "section"):
            ink, paper = page.locator(shown).first.evaluate(
                "(node) => [getComputedStyle(node).color, getComputedStyle(node).backgroundColor]"
            )
            assert contrast(ink, paper) > 7
        soft = page.locator(".axis").first.evaluate("(node) => getComputedStyle(node).color")
        assert contrast(soft, paper) > 4.5
        assert (luminance(paper) > 0.5) == (scheme == "light")
        assert page.problems == []  # type: ignore[attr-defined]


def luminance(colour: str) -> float:
    """Of WCAG 2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_for_who_does_not_see_it(page: Page) -> None:
    for name in CHARTS:
        expect(page.locator(f"#chart-{name} svg")).to_have_attribute("aria-label", re.compile(r" over the last 1 min"))
    expect(page.get_by_role("log", name="Events")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("live")
    expect(page.get_by_role("table")).to_have_count(6)
    expect(page.get_by_role("region", name="Workers")).to_have_attribute("tabindex", "0")
    expect(page.get_by_role("rowheader", name="Messages sent")).to_be_visible()
    for heading in ("Connections", "Messages a second", "Handler latency", "Closes a second", "Workers", "Events"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
    expect(page).to_have_title("0 connections · ready · tidegate")


def test_nobody_else_is_asked(page: Page, daemon: Daemon) -> None:
    expect(page.locator("#events li").first).to_be_visible()
    asked = [url for url in page.asked if not url.startswith("data:")]  # type: ignore[attr-defined]
    assert sorted(asked) == [f"http://{daemon.admin}/", f"ws://{daemon.admin}/live"]


@pytest.mark.parametrize(
    "path",
    [
        "/ops/tidegate/",
        pytest.param("/without", marks=pytest.mark.slow),
        pytest.param("/without/", marks=pytest.mark.slow),
    ],
)
def test_below_a_path_behind_a_reverse_proxy(
    context: BrowserContext, daemon: Daemon, tmp_path: Path, path: str
) -> None:
    with proxied(daemon, tmp_path) as proxy, clients(daemon.uri, 2, 3):
        page = opened(context, f"http://{proxy}{path}")
        expect(page.locator("#chart-connections .big")).to_have_text("2")
        below = f"{proxy}{path.rstrip('/')}/"
        asked = [url for url in page.asked if not url.startswith("data:")]  # type: ignore[attr-defined]
        assert sorted(asked) == [f"http://{proxy}{path}", f"ws://{below}live"]
        links = page.locator("footer a").evaluate_all("(all) => all.map((one) => one.href)")
        assert links == [f"http://{below}{name}" for name in ("metrics", "status", "readyz", "livez")]
        assert page.problems == []  # type: ignore[attr-defined]
        page.get_by_role("link", name="/readyz").click()
        expect(page.locator("body")).to_contain_text("ready")


@pytest.mark.slow
def test_the_token_below_a_path(context: BrowserContext, tmp_path: Path) -> None:
    """It is kept for this daemon alone: there may be others on the host."""
    with Daemon(ECHO, env={"TIDEGATE_ADMIN_TOKEN": TOKEN}) as daemon, proxied(daemon, tmp_path) as proxy:
        page = opened(context, f"http://{proxy}/ops/tidegate/", "not connected")
        page.get_by_label("Token of --admin-token").fill("not-the-right-token")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token of this daemon.")
        page.get_by_label("Token of --admin-token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#link")).to_have_text("live")
        page.get_by_role("link", name="/status").click()
        page.wait_for_url(re.compile("^blob:"))
        expect(page.locator("body")).to_contain_text('"workers_desired": 1')
        page.goto(f"http://{proxy}/without")
        expect(page.locator("#link")).to_have_text("not connected")
        page.goto(f"http://{proxy}/ops/tidegate/")
        expect(page.locator("#link")).to_have_text("live")


@pytest.mark.slow
def test_the_terminal_shows_what_is_below_a_path(daemon: Daemon, tmp_path: Path) -> None:
    with proxied(daemon, tmp_path) as proxy:
        for path in ("/ops/tidegate", "/ops/tidegate/", "/without/"):
            command = [sys.executable, "-m", "tidegate", "top", "--once", "--json", "--admin", f"http://{proxy}{path}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert json.loads(done.stdout)["pid"] == daemon.pid


def test_asks_for_the_token(context: BrowserContext) -> None:
    with Daemon(ECHO, env={"TIDEGATE_ADMIN_TOKEN": TOKEN}) as daemon:
        page = opened(context, f"http://{daemon.admin}/", "not connected")
        assert page.problems == []  # type: ignore[attr-defined]
        expect(page.locator("#workers")).to_be_hidden()
        page.get_by_label("Token of --admin-token").fill("not-the-right-token")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token of this daemon.")
        page.get_by_label("Token of --admin-token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#link")).to_have_text("live")
        expect(page.locator("#ask")).to_be_hidden()
        expect(page.locator("#workers")).to_be_visible()
        page.reload()
        expect(page.locator("#link")).to_have_text("live")
        page.get_by_role("link", name="/status").click()
        page.wait_for_url(re.compile("^blob:"))
        expect(page.locator("body")).to_contain_text('"workers_desired": 1')
        assert context.cookies() == []  # they would go to every port of this host


def test_the_token_in_the_fragment(context: BrowserContext) -> None:
    with Daemon(ECHO, env={"TIDEGATE_ADMIN_TOKEN": TOKEN}) as daemon:
        page = opened(context, f"http://{daemon.admin}/#token={TOKEN.replace('+', '%2B')}")
        assert page.url == f"http://{daemon.admin}/"
        assert page.problems == []  # type: ignore[attr-defined]
