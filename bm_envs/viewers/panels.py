"""Elements of a page's panel: tables, a time line, and the browser's gamepad."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bm_envs.viewers.page import Page


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values as HTML; their text is shown as it is."""
    cells = "".join(
        f"<tr><td style='color:#868e96;padding-right:0.8em;white-space:nowrap'>{html.escape(name)}"
        f"</td><td>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table style='font-size:0.85em;margin:0.2em 0.75em;line-height:1.45'>{cells}</table>"


_PAD = """<style>body{margin:0;font:12px sans-serif;color:#868e96;overflow:hidden;white-space:nowrap}
</style><body>no gamepad: press a button on it<script>
let told = "";
function field() {
  for (let e = window.frameElement; e; e = e.parentElement) {
    const found = e.querySelector("input");
    if (found) return found;
  }
}
const write = Object.getOwnPropertyDescriptor(parent.HTMLInputElement.prototype, "value").set;
setInterval(() => {
  const pad = [...parent.navigator.getGamepads()].find((p) => p && p.connected);
  const number = (value) => (value || 0).toFixed(2);
  const pressed = (sum, i) => sum + (pad.buttons[i]?.pressed ? 1 << i : 0);
  const text = pad ? `${number(pad.axes[0])} ${number(pad.axes[1])} ${[0, 1, 2, 3].reduce(pressed, 0)}` : "";
  if (text === told) return;
  const input = field();
  if (!input) return;
  document.body.firstChild.data = pad ? pad.id : "the gamepad is gone";
  write.call(input, told = text);
  input.dispatchEvent(new parent.Event("input", {bubbles: true}));
}, 50);
</script>"""  # noqa: E501


class PageGamepad:
    """A gamepad at the browser, by its Gamepad API.

    viser runs no script of ours, but a frame inside its page may; it writes what it reads into a
    text field, whose changes viser reports.
    """

    def __init__(self, page: Page) -> None:
        """Add two elements to the page's panel."""
        gui = page.server.gui
        self._state: tuple[tuple[float, float], int] | None = None
        with gui.add_folder("gamepad"):
            text = gui.add_text("stick, buttons", "")
            gui.add_html(
                f'<iframe title="gamepad" srcdoc="{html.escape(_PAD)}" '
                'style="border:0;width:94%;height:1.5em;margin:0 0.75em"></iframe>'
            )

        @text.on_update
        async def _(event: Any) -> None:
            self._state = parse_gamepad(text.value)

        @page.server.on_client_disconnect
        def _(client: Any) -> None:
            self._state = None  # a stick that was held when the page was shut is let go of

    def read(self) -> tuple[tuple[float, float], int] | None:
        """The left stick, right and down in [-1, 1], and a bit for each of the first 4 buttons."""
        return self._state


def parse_gamepad(text: str) -> tuple[tuple[float, float], int] | None:
    """What a page reports of its gamepad; None where it is malformed."""
    found = re.fullmatch(r"(-?[01]\.\d\d) (-?[01]\.\d\d) (\d{1,2})", text)
    if not found:
        return None
    x, y = (min(max(float(word), -1.0), 1.0) for word in found.groups()[:2])
    return (x, y), int(found[3]) & 0b1111


def timeline(
    seconds: np.ndarray, curve: np.ndarray | None, bars: Sequence[tuple[str, str, np.ndarray]],
    now_s: float, unit: str = "",
) -> str:  # fmt: skip
    """A curve over time and below it bars of when something holds, as HTML.

    Args:
        seconds: `[T]`, ascending from 0.
        curve: `[R]`, R <= T, of the first frames; None: there is none.
        bars: a name, a colour and `[R]` bool each.
        now_s: where the line of the present is.
        unit: of the curve.
    """
    width, left, high = 280.0, 26.0, 62.0 if curve is not None else 0.0
    total = max(float(seconds[-1]), 1e-9)
    row = 11.0

    def x(second: float) -> float:
        return left + (width - left) * min(second, total) / total

    parts: list[str] = []
    if curve is not None and len(curve):
        top = max(float(np.nanmax(curve)), 1e-9)
        # No more points than can be seen apart, each the worst of its share.
        step = -(-len(curve) // 240)
        worst = [float(curve[i : i + step].max()) for i in range(0, len(curve), step)]
        points = " ".join(
            f"{x(float(seconds[i * step])):.1f},{high - (high - 12) * value / top:.1f}"
            for i, value in enumerate(worst)
        )
        parts.append(
            f"<text x='0' y='9'>{top:.0f} {html.escape(unit)}</text><text x='0' y='{high}'>0</text>"
            f"<polyline points='{points}' fill='none' stroke='#1073e6' stroke-width='1.2'/>"
        )
    for number, (name, colour, values) in enumerate(bars):
        y = high + 5 + number * row
        parts.append(f"<text x='0' y='{y + 8}'>{html.escape(name)}</text>")
        for first, last in _runs(values):
            begin, end = x(float(seconds[first])), x(float(seconds[last]))
            parts.append(
                f"<rect x='{begin:.1f}' y='{y}' width='{max(end - begin, 0.5):.1f}' "
                f"height='{row - 3}' fill='{colour}'/>"
            )
    height = high + 5 + len(bars) * row
    parts.append(
        f"<line x1='{x(now_s):.1f}' x2='{x(now_s):.1f}' y1='0' y2='{height}' stroke='#e03131'/>"
    )
    return (
        f"<svg viewBox='0 0 {width} {height}' style='width:94%;margin:0 3%;font:9px sans-serif;"
        f"fill:#868e96'>{''.join(parts)}</svg>"
    )


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last index of each stretch that is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], values.astype(np.int8), [0]])))
    for first, end in edges.reshape(-1, 2):
        yield int(first), int(end) - 1
