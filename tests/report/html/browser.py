"""Pages in a headless Chromium that must ask for nothing and complain of nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)

CONTRAST = """() => {
  // Contrast of each text with what is behind it, as WCAG 2 defines it; the least, and of what.
  const parts = (colour) => {
    const [red, green, blue, alpha = 1] = colour.match(/[\\d.]+/g).map(Number);
    return {red, green, blue, alpha};
  };
  const light = ({red, green, blue}) => {
    const linear = [red, green, blue].map((one) => {
      const part = one / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.alpha === 1) return colour;
    }
    return {red: 255, green: 255, blue: 255};
  };
  const boxes = [...document.querySelectorAll("svg.walk rect")];
  const behindPicture = (element) => {
    const {left, top, width, height} = element.getBoundingClientRect();
    const x = left + width / 2, y = top + height / 2;
    const under = boxes.filter((box) => {
      const {left, right, top, bottom} = box.getBoundingClientRect();
      const covers = left <= x && x <= right && top <= y && y <= bottom;
      return covers && getComputedStyle(box).fill !== "none";
    });
    return parts(getComputedStyle(under.at(-1)).fill);
  };
  let least = [21, ""], seen = 0;
  for (const element of document.querySelectorAll("body *")) {
    const texts = [...element.childNodes].filter((one) => one.nodeType === 3 && one.data.trim());
    if (!texts.length || !element.getClientRects().length) continue;
    if (element.closest("script, style, title, desc, option")) continue;
    const drawn = element.closest("svg");
    const colour = parts(drawn ? getComputedStyle(element).fill : getComputedStyle(element).color);
    const [one, other] = [light(colour), light(drawn ? behindPicture(element) : behind(element))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    seen++;
    if (contrast < least[0]) least = [contrast, `${element.tagName} ${texts[0].data.trim()}`];
  }
  return {least: least[0], of: least[1], seen};
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; where there is none, the test is skipped with that reason."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium: .ci/setup test installs Debian's")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS.split())
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, path: Path, *, dark: bool = False, scripts: bool = True
) -> Iterator[Page]:
    """A page that is open while the block runs.  It fails where the page has asked for anything
    but itself, or Chromium has complained."""
    context = browser.new_context(
        color_scheme="dark" if dark else "light", java_script_enabled=scripts
    )
    page = context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    try:
        yield page
    finally:
        context.close()
    assert not wrong, wrong
    assert asked == [path.as_uri()], asked
