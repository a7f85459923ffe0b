"""The example room in a real browser: its page built from the lock, its server a process, its visitors Chromium."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.async_api import async_playwright

from e2e.processes import LOOPBACK, free_port, run, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser, Page

    from e2e.deployment import Deployment

EXAMPLES = Path(__file__).parents[2] / "examples"
ROOM = EXAMPLES / "web_room"
PATIENCE = 20_000  # milliseconds
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",  # LiveKit is reached on the loopback interface
]


class BrowserMissingError(Exception):
    """Chromium, or npm to build the page with, isn't installed."""


def chromium() -> str:
    """The path of Chromium. Raises BrowserMissingError."""
    for program in ("chromium", "npm"):
        if shutil.which(program) is None:
            raise BrowserMissingError(f"the tests of the browser room need {program}: apt-get install -y {program}")
    return str(shutil.which("chromium"))


def build_page() -> None:
    """Builds the page, exactly from the lock, unless it is newer than all it is built from."""
    built = ROOM / "build" / "room.js"
    sources = [ROOM / name for name in ("package.json", "package-lock.json", "page/room.js")]
    if built.exists() and all(built.stat().st_mtime > source.stat().st_mtime for source in sources):
        return
    run("npm ci", ["npm", "ci", "--no-audit", "--no-fund"], cwd=ROOM)
    run("npm run build", ["npm", "run", "build"], cwd=ROOM)


@contextmanager
def example(application: str, deployment: Deployment, caller: str, log: Path) -> Iterator[str]:
    """Runs an example with the certificate of a caller, by the command that it names, and gives its url."""
    port, folder = free_port(), deployment.directory
    command = [sys.executable, "-m", "uvicorn", application, "--app-dir", str(EXAMPLES), "--port", str(port)]
    env = {
        **os.environ,
        "LIVEKIT_AUTH_ADDRESS": f"{LOOPBACK}:{deployment.port}",
        "LIVEKIT_AUTH_CA": str(folder / "ca.pem"),
        "LIVEKIT_AUTH_CERT": str(folder / f"{caller}.pem"),
        "LIVEKIT_AUTH_KEY": str(folder / f"{caller}.key"),
    }
    with running(application, command, port, log, env):
        yield f"http://{LOOPBACK}:{port}"


@asynccontextmanager
async def browser(program: str) -> AsyncIterator[Browser]:
    """Chromium with a made-up camera and microphone, until the block ends."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        try:
            yield chromium
        finally:
            await chromium.close()


@dataclass(slots=True)
class Visitor:
    """Somebody with a browser of their own, and what its console and requests showed."""

    page: Page
    console: list[str]
    urls: list[str]

    @classmethod
    async def arrive(cls, browser: Browser, url: str, user: str, width: int = 1100, height: int = 780) -> Visitor:
        """Opens the page and signs in."""
        context = await browser.new_context(viewport={"width": width, "height": height})
        page = await context.new_page()
        page.set_default_timeout(PATIENCE)
        visitor = cls(page, [], [])
        page.on("console", lambda message: visitor.console.append(message.text))
        page.on("pageerror", lambda error: visitor.console.append(f"page error: {error}"))
        page.on("request", lambda request: visitor.urls.append(request.url))
        await page.goto(url)
        await page.get_by_label("Your name").fill(user)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("heading", name="Join a room").wait_for()
        return visitor

    async def ask(self, room: str, name: str = "") -> None:
        """Asks to join a room."""
        await self.page.get_by_label("Room", exact=True).fill(room)
        await self.page.get_by_label("Name that others see").fill(name)
        await self.page.get_by_role("button", name="Join").click()

    async def join(self, room: str, name: str = "") -> None:
        """Joins a room, and waits until camera and microphone are on."""
        await self.ask(room, name)
        await self.page.get_by_role("heading", name=f"Room {room}").wait_for()
        for device in ("Microphone", "Camera"):
            await self.page.get_by_role("button", name=device, pressed=True).wait_for()

    async def sees(self, identity: str) -> bool:
        """Whether a moving picture of somebody arrives in time."""
        return await self._plays("video", identity)

    async def hears(self, identity: str) -> bool:
        """Whether sound of somebody arrives in time."""
        return await self._plays("audio", identity)

    async def _plays(self, kind: str, identity: str) -> bool:
        """Whether the element's clock moves, as it does only while something arrives."""
        script = f"document.querySelector('#person-{identity} {kind}')?.currentTime ?? 0"
        for _ in range(PATIENCE // 500):
            before = await self.page.evaluate(script)
            await self.page.wait_for_timeout(500)
            if await self.page.evaluate(script) > before > 0:
                return True
        return False

    async def focused(self) -> str:
        """The id of what has the focus."""
        return str(await self.page.evaluate("document.activeElement.id"))
