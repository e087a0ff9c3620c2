"""What runs inside the sandbox: ``python -I inside.py``, told what to do on its standard input.

It imports nothing of Motley's, takes rights from itself, runs the code, and writes the word it was
given to a pipe of its own if the asserts hold. An exit that comes earlier is no pass.
"""

import builtins
import json
import os
import resource
import sys
from typing import Any

REFUSED = (
    *("os.fork", "os.forkpty", "os.exec", "os.spawn", "os.posix_spawn", "os.system", "os.kill"),
    *("subprocess.", "pty.", "socket.", "ctypes.", "os.setuid", "signal.pthread_kill"),
    *("resource.", "_thread.start_new_thread", "sys.addaudithook", "cpython._PySys_ClearAudit"),
)
CHANGES = (
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "os.setxattr", "os.removexattr", "sqlite3.connect"),
    *("shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.copytree"),
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
MODULES = frozenset({"ctypes", "_ctypes", "_posixsubprocess", "multiprocessing", "socket"})
ENDED, RAISED = 3, 4


def limit(which: int, value: int) -> None:
    """Lower a limit, never above what it is."""
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def is_ours(path: object, folder: str) -> bool:
    """Whether a path is in the folder, wherever its links lead; what is no path passes."""
    if not isinstance(path, str | bytes | os.PathLike):
        return True
    real = os.path.realpath(os.fsdecode(path))
    return real in {os.devnull, folder} or real.startswith(folder + os.sep)


def changes_others(event: str, arguments: tuple[object, ...], folder: str) -> bool:
    """Whether something outside the folder would be written, moved, made or removed."""
    if event == "open":
        path, _, flags = arguments
        return bool(isinstance(flags, int) and flags & WRITING) and not is_ours(path, folder)
    return event in CHANGES and not all(is_ours(one, folder) for one in arguments)


def take_rights(limits: dict[str, int]) -> None:
    """Limits of the system, and a hook that refuses processes, the network and others' files."""
    folder = os.path.realpath(os.getcwd())
    limit(resource.RLIMIT_AS, limits["memory_bytes"])
    limit(resource.RLIMIT_CPU, limits["cpu_s"])
    limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    limit(resource.RLIMIT_NOFILE, limits["open_files"])
    limit(resource.RLIMIT_CORE, 0)
    if "processes" in limits:
        limit(resource.RLIMIT_NPROC, limits["processes"])

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event == "import" and arguments[0] in MODULES:
            raise PermissionError(f"not allowed in the sandbox: import of {arguments[0]}")
        if event.startswith(REFUSED):
            raise PermissionError(f"not allowed in the sandbox: {event}")
        if changes_others(event, arguments, folder):
            raise PermissionError(f"not allowed in the sandbox: {event} outside its folder")

    sys.addaudithook(refuse)


def told(error: BaseException, tests: str) -> str:
    """An error in a line; for an assert that says nothing, the assert."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "tests":
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, AssertionError) and not str(error) and line:
        return f"not so: {tests.splitlines()[line - 1].strip()}"
    return f"{type(error).__name__}: {error}"


def run(job: dict[str, Any]) -> None:
    """Run one piece of code and its asserts; never returns."""
    sys.stdin = open(os.devnull)  # noqa: SIM115 - as long as the process
    take_rights(job["limits"])
    names: dict[str, object] = {"__name__": "answer", "__builtins__": builtins}
    said, rc = job["word"], 0
    try:
        exec(compile(job["code"], "answer", "exec"), names)
        exec(compile(job["tests"], "tests", "exec"), names)
    except SystemExit:
        os._exit(ENDED)
    except BaseException as error:  # noqa: BLE001 - whatever the code raises is its failure
        said, rc = told(error, job["tests"])[:300], RAISED
    os.write(job["pipe"], said.encode(errors="replace"))
    os._exit(rc)


def main() -> None:
    """Run it in a process below this one, which the first of its namespace must not be: that one
    is spared the signals of its limits."""
    job = json.loads(sys.stdin.readline())
    pid = os.fork()
    if not pid:
        run(job)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
