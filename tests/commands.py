"""Commands as users start them, without the import of TensorFlow, which takes longer than most of them work.

`start_module` and `run_module` ask a process of this module's own, one for each process of tests. It has imported what
the commands import, and computed nothing: every command is a fork of it, that runs the module as `python -m` does, in
an environment of its own if there is one, and ends as any process ends, by a signal too.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).parent.parent


class Started:
    """A command that has been started: of `subprocess.Popen`, what tests ask for."""

    def __init__(self, pid: int, args: list[str], folder: pathlib.Path):
        self.pid, self.args, self.returncode = pid, args, None
        self._folder = folder
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def poll(self) -> int | None:
        end = self._folder / "end"
        if self.returncode is None and end.is_file():
            self.returncode = int(end.read_text())
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        """The exit code, or minus the signal's number."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """Standard output and error, once it has ended."""
        self.wait(timeout)
        return tuple((self._folder / name).read_text(encoding="utf-8") for name in ("out", "err"))


def start_module(module: str, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None,
                 log: pathlib.Path | None = None) -> Started:
    """`python -m module arguments` in the root of the project; its output goes to `log`, if there is one."""
    folder = pathlib.Path(tempfile.mkdtemp())
    for name, text in (("in", stdin), ("out", ""), ("err", "")):
        (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")  # what is no UTF-8, too
    server = _server()
    print(json.dumps([module, arguments, str(folder), env and dict(env), log and str(log)]), file=server.stdin,
          flush=True)
    return Started(int(server.stdout.readline()), [module, *arguments], folder)


def run_code(code: str, *arguments: str) -> subprocess.CompletedProcess:
    """`python -c code arguments`, in the same way."""
    return run_module("-c", code, *arguments)


def run_module(module: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    """As `start_module`, to its end: exit code, standard output and error, as text."""
    process = start_module(module, *arguments, stdin=stdin)
    said = process.communicate(timeout=3600)
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


@functools.cache
def _server() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "tests.commands"], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)  # it ends with its standard input


def _serve() -> None:
    """Returns in the forks alone, having become the command."""
    watching: set[int] = set()
    for line in sys.stdin:
        module, arguments, folder, env, log = json.loads(line)
        watcher = os.fork()
        if not watcher:
            child = os.fork()
            if child:
                print(child, flush=True)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                end = pathlib.Path(folder, "end.tmp")
                if end.parent.is_dir():  # else nobody asks any more
                    end.write_text(str(code))
                    end.rename(end.with_suffix(""))
                os._exit(0)
            for number, name in enumerate(("in", "out", "err")):
                file = log if log and number else os.path.join(folder, name)
                os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
            if env is not None:
                os.environ.clear()
                os.environ.update(env)
            sys.stdin = os.fdopen(0)
            if module == "-c":
                sys.argv = [module, *arguments[1:]]
                exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
            else:
                sys.argv = [module, *arguments]
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            return
        watching = {pid for pid in (*watching, watcher) if not os.waitpid(pid, os.WNOHANG)[0]}


if __name__ == "__main__":
    import keras  # noqa: F401
    import tensorflow as tf  # noqa: F401

    import tf_l2t.students
    import tf_l2t.training  # noqa: F401
    import trainers.command  # noqa: F401
    from tests.graphs import made_cheaply

    made_cheaply()
    _serve()
