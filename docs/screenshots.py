"""Pictures of TensorBoard for docs/tensorboard.md, taken by a headless Chromium from the runs of `make demo`.

    python docs/screenshots.py --runs runs/demo-... --output docs

`make screenshots` runs it on the newest demo. It starts a TensorBoard on the runs, waits on every page until the
browser shows what should be there, and saves what it sees; a page that does not show it in time is an error. The
table's report is opened without a network. Needs selenium, Chromium and its driver (Debian: apt-get install
chromium-driver).
"""

import argparse
import io
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import NamedTuple

import matplotlib.image
import numpy as np
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webelement import WebElement

SECONDS = 60  # for a page to show what it should
# Text without blanks (names are cut into parts), pictures that have loaded, charts' lines and canvases, in all shadow
# trees.
SEEN = """
const texts = [], counts = {pictures: 0, lines: 0, canvases: []};
(function walk(root) {
  for (const node of root.querySelectorAll('*')) {
    if (node.shadowRoot) walk(node.shadowRoot);
    if (node.tagName === 'IMG' && node.complete && node.naturalWidth > 100) counts.pictures += 1;
    if (node.tagName === 'CANVAS' && node.width > 150) counts.canvases.push(node);
    if (node.tagName === 'path' && (node.getAttribute('d') || '').length > 1000) counts.lines += 1;  // no icon's
    for (const child of node.childNodes) if (child.nodeType === 3) texts.push(child.textContent);
  }
})(document);
return {text: texts.join('').replace(/\\s/g, ''), ...counts};
"""


class Page(NamedTuple):
    """A page of TensorBoard: its address, and what must be on it."""

    name: str
    address: str
    texts: tuple[str, ...]
    pictures: int = 0
    lines: int = 0
    shown: bool = True  # in the documents


PAGES = (
    Page("images", "?tagFilter=(start|end|by_step)$#timeseries",
         ("coefficients/start", "coefficients/end", "coefficients/pairs_by_step", "adjoint/norm_by_step"), pictures=4),
    Page("pairs", "?tagFilter=coefficients_of_pairs&smoothing=0#timeseries", ("Φ(0, 1)", "Φ(1, 0)"), lines=4),
    Page("curves", "?tagFilter=teacher/&smoothing=0#timeseries", ("teacher/dev_accuracy", "teacher/adjoint_norm"),
         lines=4),
    Page("distributions", "#distributions", ("coefficients/end/values",), lines=3),
    Page("student", "?tagFilter=coefficients/current#timeseries", ("coefficients/current",), pictures=1),
    Page("graph", "#graphs", ("Softmax", "features")),
    Page("config", "#text", ("teacher_training",), shown=False),
    Page("hparams", "#hparams", ("taught", "cross_entropy", "learning_rate")),
)
REPORT = Page("report", "table/report.html", ("taught", "cross entropy"), pictures=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=pathlib.Path, required=True, help="holds teacher/ and table/ of make demo")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the pictures' folder")
    parser.add_argument("--port", type=int, default=6126)
    arguments = parser.parse_args()
    driver = shutil.which("chromedriver")
    if driver is None:
        sys.exit("found no chromedriver: install Chromium and its driver (Debian: apt-get install chromium-driver).")
    if not (arguments.runs / "teacher" / "tensorboard").is_dir():
        sys.exit(f"{arguments.runs} holds no run of make demo: it has no teacher/tensorboard.")
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", ".", "--load_fast", "false",
                               "--host", "127.0.0.1", "--port", str(arguments.port)], cwd=arguments.runs,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    options = Options()
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1600,1250"):
        options.add_argument(option)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        wait_for(f"http://127.0.0.1:{arguments.port}/")
        for page in PAGES:
            path = arguments.output / f"tensorboard_{page.name}.png"
            visit(browser, f"http://127.0.0.1:{arguments.port}/{page.address}", page)
            if page.shown:
                browser.save_screenshot(str(path))
            print(path if page.shown else page.address, flush=True)
        browser.execute_cdp_cmd("Network.enable", {})
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, "latency": 0,
                                                                     "downloadThroughput": 0, "uploadThroughput": 0})
        visit(browser, (arguments.runs / REPORT.address).resolve().as_uri(), REPORT)
        print("the report opens without a network", flush=True)
    finally:
        browser.quit()
        server.terminate()
        server.wait()


def wait_for(address: str) -> None:
    for _ in range(SECONDS):
        try:
            urllib.request.urlopen(address).close()
            return
        except urllib.error.URLError:
            time.sleep(1)
    sys.exit(f"TensorBoard does not answer at {address}.")


def visit(browser: webdriver.Chrome, address: str, page: Page) -> None:
    """Opens a page and returns when it shows all that it must; ends the program if it never does."""
    end, seen = time.monotonic() + SECONDS, {"text": "nothing", "pictures": 0, "lines": 0}
    while time.monotonic() < end:
        browser.get("about:blank")  # only the part behind # differs, which alone loads nothing
        browser.get(address)
        for _ in range(10):
            time.sleep(1)
            seen = browser.execute_script(SEEN)
            seen["lines"] += sum(is_drawn_on(canvas) for canvas in seen["canvases"][:page.lines])
            if (all(text.replace(" ", "") in seen["text"] for text in page.texts) and seen["pictures"] >= page.pictures
                    and seen["lines"] >= page.lines):
                time.sleep(1)  # for what is still moving
                return
    missing = [text for text in page.texts if text.replace(" ", "") not in seen["text"]]
    sys.exit(f"{address} does not show what it should: no {missing}, {seen['pictures']} pictures of {page.pictures}, "
             f"{seen['lines']} lines of {page.lines}.")


def is_drawn_on(canvas: WebElement) -> bool:
    """Whether there is something in colour on what is seen of it, as a line is."""
    try:
        pixels = matplotlib.image.imread(io.BytesIO(canvas.screenshot_as_png))[..., :3]
    except WebDriverException:  # it has gone, or no size yet
        return False
    return int(np.sum(np.ptp(pixels, axis=-1) > 0.2)) > 20


if __name__ == "__main__":
    main()
