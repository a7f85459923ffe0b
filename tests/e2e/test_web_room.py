"""The example room in two browsers and a real LiveKit: tokens from the standard endpoint, readable denials."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.web_room import BrowserMissingError, Visitor, browser, build_page, chromium, example

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGES = Path(__file__).parents[2] / "docs" / "images"
JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")


@pytest.fixture(scope="module")
def program():
    """Chromium; without it, and outside CI, the tests are skipped."""
    try:
        return chromium()
    except BrowserMissingError as error:
        missing = str(error)
    if os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@pytest.fixture(scope="module")
def site(program, deployment, tmp_path_factory):
    """The example's url, and its log."""
    build_page()
    log = tmp_path_factory.mktemp("web-room") / "uvicorn.log"
    with example("web_room.app:app", deployment, "web", log) as url:
        yield url, log


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chrome(program):
    async with browser(program) as chrome:
        yield chrome


@pytest_asyncio.fixture(loop_scope="session")
async def arrive(chrome, site):
    """Has somebody arrive in a browser window of their own, which is closed when the test ends."""
    visitors = []

    async def arrive(user, **window):
        visitors.append(await Visitor.arrive(chrome, site[0], user, **window))
        return visitors[-1]

    yield arrive
    for visitor in visitors:
        await visitor.page.context.close()


@pytest.fixture(scope="module")
def image():
    """Where a screenshot goes: the documents' images only when asked to renew them."""
    if os.environ.get("RENEW_IMAGES"):
        return IMAGES
    return None


async def photograph(visitor, folder, name):
    if folder:
        await visitor.page.screenshot(path=folder / f"{name}.png", full_page=True)


async def test_two_people_see_and_hear_each_other(arrive, site, room, image):
    ada, bob = await arrive("ada"), await arrive("bob", width=360, height=740)
    await ada.join(room, "Ada Lovelace")
    await bob.join(room)
    assert await ada.sees("user-bob")
    assert await bob.sees("user-ada")
    assert await ada.hears("user-bob")
    assert await bob.hears("user-ada")
    assert await bob.page.get_by_text("Ada Lovelace", exact=True).is_visible()
    assert await ada.page.get_by_role("status").inner_text() == "bob has joined."
    await photograph(ada, image, "web-room")
    await photograph(bob, image, "web-room-narrow")

    await bob.page.get_by_role("button", name="Microphone").click()
    await ada.page.get_by_text("Microphone off").wait_for()
    await bob.page.get_by_role("button", name="Leave").click()
    await bob.page.get_by_text("You have left the room.").wait_for()
    await ada.page.get_by_text("bob has left.").wait_for()

    for visitor in (ada, bob):
        assert not [line for line in visitor.console if JWT.search(line) or line.startswith("page error")]
        assert not [url for url in visitor.urls if JWT.search(url) and not url.startswith(("ws", "http://127.0.0.1"))]
    assert not JWT.search(site[1].read_text())


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ("board-1", "the board's rooms aren't open to you"),  # the application's own rule
        ("private-1", "you aren't allowed a token for this"),  # the service's policy
    ],
)
async def test_a_denial_is_readable_and_leads_on(arrive, room, image, refused, words):
    ada = await arrive("ada", width=360, height=740)
    await ada.ask(refused)
    alert = ada.page.get_by_role("alert")
    await alert.get_by_role("heading", name="You may not join this room").wait_for()
    assert words in await alert.inner_text()
    assert ("For support: decision " in await alert.inner_text()) == (refused == "private-1")
    assert await ada.focused() == "problem"
    if refused == "private-1":
        await photograph(ada, image, "web-room-denied")
    await ada.join(room)
    assert not await alert.is_visible()


async def test_a_token_is_kept_and_renewed_on_demand(arrive, room):
    ada = await arrive("ada")

    def asked():
        return sum(url.endswith("/livekit/token-source") for url in ada.urls)

    await ada.join(room)
    await ada.page.get_by_role("button", name="Leave").click()
    await ada.join(room)
    assert asked() == 1
    before = int(await ada.page.locator("#expiry").get_attribute("data-exp"))
    await ada.page.wait_for_timeout(1100)
    await ada.page.get_by_role("button", name="Get a new token").click()
    await ada.page.get_by_text("You have a new token.").wait_for()
    assert asked() == 2
    assert int(await ada.page.locator("#expiry").get_attribute("data-exp")) > before
    await ada.page.get_by_role("button", name="Leave").click()
    await ada.join(room)
    assert asked() == 2


async def test_who_signed_out_elsewhere_is_asked_to_sign_in(arrive, room):
    ada = await arrive("ada")
    await ada.page.context.clear_cookies()
    await ada.ask(room)
    await ada.page.get_by_role("heading", name="You are signed out").wait_for()
    assert await ada.page.get_by_label("Your name").is_visible()


async def test_a_field_over_livekits_limit_is_explained(arrive):
    ada = await arrive("ada")
    await ada.ask("consult-" + "ü" * 150)
    await ada.page.get_by_role("heading", name="That doesn't work").wait_for()
    assert "room name" in await ada.page.get_by_role("alert").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100, 1920])
async def test_the_page_can_be_used_by_everybody(arrive, room, width, scheme):
    ada = await arrive("ada", width=width)
    await ada.page.emulate_media(color_scheme=scheme)
    assert await _faults(ada) == []
    await ada.ask("board-1")
    await ada.page.get_by_role("alert").wait_for()
    assert await _faults(ada) == []
    await ada.join(room)
    assert await ada.focused() == "room-title"
    assert await _faults(ada) == []


async def test_a_wide_screen_is_used(arrive, room):
    ada, bob = await arrive("ada", width=1920, height=1080), await arrive("bob")
    await ada.join(room)
    await bob.join(room)
    await ada.sees("user-bob")
    boxes = [await ada.page.locator(f"#person-user-{user}").bounding_box() for user in ("ada", "bob")]
    assert sum(box["width"] for box in boxes) > 0.8 * 1920
    assert boxes[0]["y"] == boxes[1]["y"]
    leave = await ada.page.get_by_role("button", name="Leave").bounding_box()
    assert leave["y"] + leave["height"] <= 1080  # without scrolling


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        ({"server_url": "ws://127.0.0.1:1"}, "LiveKit can't be reached"),
        ({"participant_token": None}, "LiveKit refused your token"),
    ],
)
async def test_a_refused_token_and_an_unreachable_server_are_told_apart(arrive, room, answer, title):
    """Both by what the browser learns itself, from a LiveKit on another port than the page's."""
    ada = await arrive("ada")

    async def change(route):
        response = await route.fetch()
        body = await response.json()
        forged = f"{body['participant_token'].rpartition('.')[0]}.{'A' * 43}"
        changed = {name: value or forged for name, value in answer.items()}
        await route.fulfill(response=response, json={**body, **changed})

    await ada.page.route("**/livekit/token-source", change)
    await ada.ask(room)
    await ada.page.get_by_role("alert").get_by_role("heading", name=title).wait_for()
    assert not [line for line in ada.console if "Content Security Policy" in line]
    await ada.page.unroute("**/livekit/token-source")


async def test_an_application_that_is_gone_is_no_refusal(arrive, room):
    ada = await arrive("ada")
    await ada.page.route("**/livekit/token-source", lambda route: route.abort())
    await ada.ask(room)
    await ada.page.get_by_role("heading", name="The application can't be reached").wait_for()


async def test_the_page_works_with_the_keyboard_alone(arrive, room):
    ada = await arrive("ada")
    keys = ada.page.keyboard
    await ada.page.get_by_label("Room", exact=True).focus()
    await keys.press("ControlOrMeta+a")
    await keys.type(room)
    await keys.press("Enter")
    await ada.page.get_by_role("button", name="Camera", pressed=True).wait_for()
    await keys.press("Tab")
    await keys.press("Space")
    await ada.page.get_by_role("button", name="Microphone", pressed=False).wait_for()
    for _ in range(2):
        await keys.press("Tab")
    await keys.press("Enter")
    await ada.page.get_by_text("You have left the room.").wait_for()
    assert await ada.focused() == "join-room"


async def test_nobody_can_frame_the_page_and_scripts_cannot_read_the_session(arrive):
    ada = await arrive("ada")
    answer = await ada.page.request.get(ada.page.url)
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    (cookie,) = await ada.page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert await ada.page.evaluate("document.cookie") == ""


async def _faults(visitor):
    """What keeps people out: too little contrast (WCAG 2.2, 1.4.3), controls without a name, sideways scrolling."""
    return await visitor.page.evaluate(FAULTS)


FAULTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((c) => linear(c / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const backOf = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(e).backgroundColor);
      if (a > 0.7) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const faults = [];
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) faults.push("scrolls sideways");
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility()) continue;
    if ([...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim())) {
      const [a, b] = [parse(getComputedStyle(element).color), backOf(element)].map(light).sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) faults.push(`${element.textContent.trim()}: contrast ${ratio.toFixed(2)}`);
    }
    if (element.matches("input") && !element.labels.length) faults.push(`${element.id} has no label`);
    if (element.matches("button") && !element.textContent.trim()) faults.push(`${element.id} has no name`);
    const small = element.getBoundingClientRect().height < 24;
    if (small && element.matches("button, input")) faults.push(`${element.id} is small`);
  }
  return faults;
}"""
