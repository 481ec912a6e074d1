"""Commands that are refused, as processes that need not import TensorFlow first, which takes longest.

`python -m tests.refusals` reads a JSON list of commands, each a list of a module and its arguments, and prints one of
[exit code, standard error]. Each is a fork of a process that has imported TensorFlow and computed nothing; what begins
to work is to be started by itself.
"""

import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback


def refusals(commands: list[list[str]], cwd: os.PathLike) -> list[tuple[int, str]]:
    """The exit code and standard error of `python -m` with each command's module and arguments."""
    done = subprocess.run([sys.executable, "-m", "tests.refusals"], cwd=cwd, input=json.dumps(commands),
                          capture_output=True, text=True, check=True)
    return [tuple(found) for found in json.loads(done.stdout)]


def _refusal(module: str, *arguments: str) -> tuple[int, str]:
    with tempfile.TemporaryFile() as error:
        child = os.fork()
        if not child:
            code = 0
            try:
                os.dup2(error.fileno(), 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                sys.argv = [module, *arguments]
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        error.seek(0)
        return os.waitstatus_to_exitcode(status), error.read().decode()


if __name__ == "__main__":
    import tensorflow as tf  # noqa: F401

    print(json.dumps([_refusal(*command) for command in json.load(sys.stdin)]))
