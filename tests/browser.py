"""Opens a report in a real browser (headless Chromium), presses every entry, and says what was shown."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

INSTALL = "apt-get install -y --no-install-recommends chromium"

_PRESS_EVERYTHING = """
(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const links = () => [...document.querySelectorAll("nav a")].filter((link) => link.textContent.trim());
  const press = async (text) => {
    links().find((link) => link.textContent.trim() === text).click();
    await wait(100);
  };
  const shown = async () => {
    await wait(1000);
    const image = document.querySelector("#app img[src^='data:image/png']");
    const frame = document.querySelector("#app iframe");
    if (image) return { kind: "image", width: image.naturalWidth };
    if (!frame) return { kind: "nothing" };
    const page = frame.contentDocument;
    return { kind: "page", text: page.body.innerText, images: [...page.images].map((one) => one.naturalWidth) };
  };
  const seen = { entries: [] };
  try {
    while (!links().length) await wait(100);
    await wait(1000);
    seen.menu = links().map((link) => link.textContent.trim());
    seen.introduction = document.querySelector(".prose").innerText;
    seen.graph = document.querySelectorAll("#rulegraph canvas, #rulegraph svg.marks").length;
    for (const [category, subcategories] of Object.entries(categories)) {
      for (const subcategory of Object.keys(subcategories)) {
        document.querySelector("nav nav a").click();  // home
        await wait(100);
        await press(category);
        if (Object.keys(subcategories).length > 1) await press(subcategory);
        for (const row of document.querySelectorAll("nav tbody tr")) {
          row.querySelector("td:last-child a").click();
          seen.entries.push({ category, subcategory, label: row.cells[0].textContent, ...(await shown()) });
        }
      }
    }
  } catch (error) {
    seen.error = String(error);
  }
  const verdict = document.createElement("pre");
  verdict.id = "seen";
  verdict.textContent = JSON.stringify(seen);
  document.body.append(verdict);
})();
"""


def open_report(report: Path, scratch: Path) -> dict[str, Any]:
    """What a person sees who presses every entry of a Snakemake report.

    `menu`, `introduction`, `graph` (pictures of the DAG), and `entries`, each {category, subcategory, label} with what
    was shown: {kind: image, width}, or {kind: page, text, images: widths}. Skips where there is no Chromium.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip(f"no Chromium: {INSTALL}")
    before, _, after = report.read_text(encoding="utf-8").rpartition("</body>")
    pressed = scratch / "pressed.html"
    pressed.write_text(f"{before}<script>{_PRESS_EVERYTHING}</script></body>{after}", encoding="utf-8")
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={scratch / 'browser'}",
            # pages of a report are frames of another origin: the script has to look into them
            "--disable-web-security", "--disable-site-isolation-trials",
            "--window-size=1400,900", "--virtual-time-budget=60000", "--dump-dom", pressed.as_uri(),
        ],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"Chromium ended with {done.returncode} and showed no verdict:\n{done.stderr[-2000:]}"
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert "error" not in seen, seen
    return seen
