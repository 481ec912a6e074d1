"""Commands as users start them, without the import of TensorFlow, which takes longer than most of them work.

`run_module` asks a process of this module's own, one for each process of tests. It has imported what the commands
import, and computed nothing: every command is a fork of it, that runs the module as `python -m` does and ends as any
process ends. What is to be killed, or to have an environment of its own, is to be started by itself.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent


def run_module(module: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    """`python -m module arguments` in the root of the project: exit code, standard output and error, as text."""
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / name for name in ("stdin", "stdout", "stderr")]
        for file, text in zip(files, (stdin, "", ""), strict=True):
            file.write_text(text, encoding="utf-8")
        print(json.dumps([module, arguments, [str(file) for file in files]]), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        said = (file.read_text(encoding="utf-8") for file in files[1:])
        return subprocess.CompletedProcess([module, *arguments], code, *said)


@functools.cache
def _server() -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "tests.commands"], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)  # it ends with its standard input


def _serve() -> None:
    """Returns in the forks alone, having become the command."""
    for line in sys.stdin:
        module, arguments, files = json.loads(line)
        child = os.fork()
        if not child:
            for number, file in enumerate(files):
                os.dup2(os.open(file, os.O_RDWR), number)
            sys.stdin = os.fdopen(0)
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    import keras  # noqa: F401
    import tensorflow as tf  # noqa: F401

    import tf_l2t.students
    import tf_l2t.training  # noqa: F401
    import trainers.command  # noqa: F401
    from tests.tracing import trace_lightly

    trace_lightly()
    _serve()
