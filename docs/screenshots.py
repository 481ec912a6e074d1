"""Pictures of TensorBoard for docs/tensorboard.md, taken by a headless Chromium from the runs of `make demo`.

    python docs/screenshots.py --runs runs/demo-... --output docs

`make screenshots` runs it on the newest demo. It starts a TensorBoard on the runs, waits on every page until the
browser shows what should be there, and saves what it sees; a page that does not show it in time is an error. Needs
selenium, Chromium and its driver (Debian: apt-get install chromium-driver).
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import time
from typing import NamedTuple

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

SECONDS = 60  # for a page to show what it should
# Text, pictures that have loaded, and lines of charts, in all shadow trees.
SEEN = """
const texts = [], counts = {pictures: 0, lines: 0};
(function walk(root) {
  for (const node of root.querySelectorAll('*')) {
    if (node.shadowRoot) walk(node.shadowRoot);
    if (node.tagName === 'IMG' && node.complete && node.naturalWidth > 100) counts.pictures += 1;
    if (node.tagName === 'CANVAS' || node.tagName === 'path') counts.lines += 1;
    for (const child of node.childNodes) if (child.nodeType === 3) texts.push(child.textContent);
  }
})(document);
return {text: texts.join(' '), ...counts};
"""


class Page(NamedTuple):
    """A page of TensorBoard: its address behind '#', and what must be on it."""

    name: str
    address: str
    texts: tuple[str, ...]
    pictures: int = 0
    lines: int = 0


PAGES = (
    Page("images", "images", ("coefficients/start", "coefficients/end", "coefficients/pairs_by_step"), pictures=4),
    Page("pairs", "timeseries&tagFilter=coefficients_of_pairs", ("Φ(4, 9)", "Φ(9, 4)"), lines=4),
    Page("curves", "timeseries&tagFilter=teacher", ("teacher/objective", "teacher/adjoint_norm"), lines=4),
    Page("distributions", "distributions", ("coefficients/end/values",), lines=3),
    Page("graph", "graphs", ("Softmax",), lines=5),
    Page("config", "text", ("teacher_training",)),
    Page("hparams", "hparams", ("taught", "cross_entropy", "learning_rate")),
)


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
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", str(arguments.runs), "--host",
                               "127.0.0.1", "--port", str(arguments.port), "--load_fast", "false"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    options = Options()
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,1000"):
        options.add_argument(option)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        for page in PAGES:
            path = arguments.output / f"tensorboard_{page.name}.png"
            visit(browser, f"http://127.0.0.1:{arguments.port}/#{page.address}", page)
            browser.save_screenshot(str(path))
            print(path, flush=True)
    finally:
        browser.quit()
        server.terminate()
        server.wait()


def visit(browser: webdriver.Chrome, address: str, page: Page) -> None:
    """Opens a page and returns when it shows all that it must; ends the program if it never does."""
    end, seen = time.monotonic() + SECONDS, {"text": "nothing", "pictures": 0, "lines": 0}
    while time.monotonic() < end:
        browser.get("about:blank")  # only the part behind # differs, which alone loads nothing
        try:
            browser.get(address)
        except Exception as error:  # noqa: BLE001  the server is not up yet
            print(type(error).__name__, flush=True)
        for _ in range(10):
            time.sleep(1)
            seen = browser.execute_script(SEEN)
            if (all(text in seen["text"] for text in page.texts) and seen["pictures"] >= page.pictures
                    and seen["lines"] >= page.lines):
                time.sleep(1)  # for what is still moving
                return
    missing = [text for text in page.texts if text not in seen["text"]]
    sys.exit(f"{address} does not show what it should: no {missing}, {seen['pictures']} pictures of {page.pictures}, "
             f"{seen['lines']} lines of {page.lines}.")


if __name__ == "__main__":
    main()
