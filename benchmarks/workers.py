"""The orchestrator's side of `benchmarks.serve`: one process per library and setting."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent


class Unsupported(Exception):
    """The library, or this version of it, has no such setting."""


class TooSlow(Exception):
    """No answer within the limit; the process was ended."""


class Failed(Exception):
    """The worker raised, or its process ended."""


class Worker:
    """A worker process. While no request is under way it is blocked on its stdin.

    Args:
      module: the program, such as "benchmarks.tf_l2t_run".
      environment: variables for it beside those of this process.
    """

    def __init__(self, module: str, environment: dict[str, str] | None = None):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu",
                       **(environment or {})}
        self.module = module
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", module], cwd=ROOT, env=environment,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self.pid = self._process.pid
        self._replies: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put("")

    def ask(self, cmd: str, limit: float | None = None, **arguments: Any) -> dict[str, Any]:
        """The answer to a request.

        Args:
          limit: seconds to wait for it.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"cmd": cmd, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._replies.get(timeout=limit)
        except queue.Empty:
            self.close(kill=True)
            raise TooSlow(f"{self.module} did not answer {cmd!r} within {limit:g} s.") from None
        except OSError as error:
            raise Failed(f"{self.module} has ended: {error}") from error
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            raise Failed(f"{self.module} ended with code {code} during {cmd!r}: {self._errors.read()[-2000:]}")
        reply = json.loads(line)
        if "error" in reply:
            raise (Unsupported if reply["unsupported"] else Failed)(f"{self.module}: {reply['error']}")
        return reply["ok"]

    def close(self, kill: bool = False) -> None:
        """Ends the process."""
        if kill:
            self._process.kill()
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
