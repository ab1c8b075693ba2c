"""How fast the site's demo page loads and runs: on loopback, in headless Chromium.

    mkdocs build    # with the demo page in it: docs/demo.md, "Build it"
    python benchmarks/demo_page.py --json benchmarks/results/demo_page.json

Each load begins in a browser that has nothing in its cache. The files are sent as common hosts send
them, compressed by gzip; they are compressed before the clock starts. Rows are `{what, unit, value,
lowest, highest, count}`: the median of so many values, the lowest and the highest.

    load         s, from asking for the page until its robot plays
    sent         MB (a million bytes), the files that were sent for it, compressed
    POLICY       simulated over real time, as the page shows it, read once a second

The processor draws the picture, as it does in headless Chromium without a graphics card. It is not
free to simulate meanwhile, nor is one that has other work: `busy_cores` of the settings is how many
cores others kept busy in the second before the first load.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import http.server
import os
import re
import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bm_envs import cli
from bm_envs.errors import BackendUnavailable, BMError, ConfigError

POLICIES = ("guided_body_pos", "walks")
"""The diffusion model, with which the page begins, and a tracker."""
WINDOW = {"width": 1280, "height": 800}
GZIP_LEVEL = 6
SETTLE_S = 3  # s that a policy plays before its speed is read
PATIENCE_MS = 150_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip
# The cover goes when a robot plays.
WATCH = """
new MutationObserver((_, watcher) => {
  if (document.getElementById("cover")?.hidden) {
    window.loadedMs = performance.now();
    watcher.disconnect();
  }
}).observe(document, { subtree: true, childList: true, attributes: true });
"""


@dataclass(frozen=True)
class Config:
    """Which site, and how often."""

    site: Path = Path("site")
    """Folder of the built site, with the demo page in it."""
    loads: int = 5
    """How often the page is loaded."""
    seconds: int = 20
    """How long each policy plays while its speed is read, s."""
    json: Path | None = None
    """Result file to write."""

    def __post_init__(self) -> None:
        for name in ("loads", "seconds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected 1 or more.")


class Served(http.server.ThreadingHTTPServer):
    """A built site on loopback, its files compressed."""

    def __init__(self, folder: Path) -> None:
        served = self
        self.asked: list[str] = []
        """Paths that were asked for."""
        self.missing: list[str] = []
        """Those of them that were not there."""
        self.sent = 0
        """Bytes of files that were sent."""
        self.packed = functools.cache(lambda path: gzip.compress(path.read_bytes(), GZIP_LEVEL))
        for path in (folder / "demo").rglob("*"):
            if path.is_file():
                self.packed(path)

        class Handler(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = Path(self.translate_path(self.path))
                if not path.is_file():
                    self.send_error(404)
                    return
                body = served.packed(path)
                self.send_response(200)
                self.send_header("Content-Type", self.guess_type(path))
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                served.sent += len(body)
                with contextlib.suppress(ConnectionError):  # a page that was left meanwhile
                    self.wfile.write(body)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                served.asked.append(self.path)
                if int(code) >= 400:
                    served.missing.append(self.path)

            def log_error(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server_port}/demo/index.html"
        threading.Thread(target=self.serve_forever, daemon=True).start()


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A real browser without a window, which draws WebGL by the processor.

    Raises:
        BackendUnavailable: playwright or Chromium is not installed.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise BackendUnavailable(
            "A browser needs the package playwright: pip install 'bm-envs[dev]'."
        ) from None
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise BackendUnavailable("No Chromium on this machine (Debian: apt-get install chromium).")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=list(FLAGS), timeout=PATIENCE_MS
        )
        try:
            yield browser
        finally:
            browser.close()


def load(browser: Any, served: Served) -> tuple[Any, float]:
    """The page in a browser without a cache, and the seconds until its robot played."""
    page = browser.new_context(viewport=WINDOW).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.add_init_script(WATCH)
    page.goto(served.url)
    loaded = page.wait_for_function("window.loadedMs").json_value()
    return page, loaded / 1000


def factors(page: Any, seconds: int) -> list[float]:
    """What the page shows as real time, once a second.

    Raises:
        BMError: it shows nothing, as where it stands still.
    """
    page.wait_for_timeout(1000 * SETTLE_S)
    found = []
    for _ in range(seconds):
        page.wait_for_timeout(1000)
        text = page.locator("#figures").inner_text()
        shown = re.search(r"real time\s*([\d.]+) x", text)
        if shown is None:
            raise BMError(f"The page shows no speed ({' '.join(text.split())}).")
        found.append(float(shown[1]))
    return found


def row(what: str, unit: str, values: Sequence[float]) -> dict[str, Any]:
    """A row of the result."""
    value, low, high = (round(f(values), 3) for f in (statistics.median, min, max))
    return {
        "what": what, "unit": unit, "value": value, "lowest": low, "highest": high,
        "count": len(values),
    }  # fmt: skip


def measure(browser: Any, site: Path, loads: int, seconds: int) -> list[dict[str, Any]]:
    """Load the page so often, then let each policy play so long; the result's rows."""
    served = Served(site)
    took, sent, page = [], [], None
    for i in range(loads):
        if page is not None:
            page.context.close()
        served.sent = 0
        page, found = load(browser, served)
        took.append(found)
        sent.append(served.sent / 1e6)
        print(f"load {i + 1} of {loads}: {found:.2f} s, {sent[-1]:.2f} MB sent", flush=True)
    assert page is not None
    rows = [row("load", "s", took), row("sent", "MB", sent)]
    for name in POLICIES:
        page.evaluate("name => demo.play(name)", name)
        rows.append(row(name, "x real time", factors(page, seconds)))
        print(f"{name}: {rows[-1]['value']:.2f} x real time", flush=True)
    page.context.close()
    served.shutdown()
    served.server_close()
    return rows


def busy_cores() -> float | None:
    """Cores that worked during one second; None where the system does not tell (not Linux)."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None

    def worked() -> int:  # in ticks of all cores: user, nice, system; idle ones are left out
        return sum(int(ticks) for ticks in stat.read_text().split()[1:4])

    before, began = worked(), time.monotonic()
    time.sleep(1.0)
    seconds = time.monotonic() - began
    return round((worked() - before) / os.sysconf("SC_CLK_TCK") / seconds, 1)


def main(config: Config) -> None:
    """Measure and report."""
    for name in ("main.js", "data/settings.json"):
        if not (config.site / "demo" / name).is_file():
            raise ConfigError(
                f"{config.site}: holds no demo page that was built, expected the site of "
                "'mkdocs build' after the commands of docs/demo.md."
            )
    busy = busy_cores()
    with chromium() as browser:
        rows = measure(browser, config.site, config.loads, config.seconds)
        version = browser.version
    heads = ("what", "median", "lowest", "highest", "unit")
    lines = [(r["what"], r["value"], r["lowest"], r["highest"], r["unit"]) for r in rows]
    print(cli.aligned([heads, *(tuple(map(str, line)) for line in lines)]))
    if config.json is not None:
        result = cli.json_result("demo_page", seed=None, rows=rows)
        result["settings"] = {
            "chromium": version, "window": WINDOW, "gzip_level": GZIP_LEVEL,
            "busy_cores": busy,
        }  # fmt: skip
        cli.write_json(config.json, result)
        print(f"results in {config.json}")


if __name__ == "__main__":
    cli.run(main, Config)
