"""Opening a page from disk in a real browser, and what it said, asked for and showed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

# The browser talks to its maker on its own account, whatever page is open.
BROWSERS_OWN = ("google.com", "googleapis.com", "gstatic.com", "gvt1.com")


@dataclass(frozen=True)
class Opened:
    """What a browser made of a page. requests: addresses outside the page that it asked the network for."""

    dom: str
    console: list[str]
    requests: list[str]
    screenshot: Image.Image


def browse(page: Path, folder: Path, width: int = 1280, height: int = 2400) -> Opened:
    """Opens a page in headless Chromium. folder: made for the browser's profile and logs."""
    browser = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if browser is None:
        raise RuntimeError(
            "no chromium, chromium-browser or google-chrome on PATH; run: bash pipeline/install.sh --dev"
        )
    folder.mkdir()
    log, picture = folder / "net.json", folder / "page.png"
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --v=0 --dump-dom"
    flags += f" --virtual-time-budget=2000 --window-size={width},{height} --screenshot={picture} --log-net-log={log}"
    # Nothing resolves, so that a page under test cannot reach anybody; the attempt is logged all the same.
    command = [
        browser,
        *flags.split(),
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
    ]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    asked = set(re.findall(r'"url":"((?:https?|wss?|ftp)://([^/":]+)[^"]*)"', log.read_text(errors="replace")))
    requests = sorted(url for url, host in asked if not host.endswith(BROWSERS_OWN))
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    with Image.open(picture) as image:
        return Opened(done.stdout, console, requests, image.convert("RGB"))
