"""Kills a process before the n-th thing that it writes: a command to the database, or an operation on a file.

An action runs in a fork of this process, with a connection of its own, and SIGKILL ends it: no
``finally``, no handler, no flush. What it leaves is what a power cut leaves.
"""

import os
import resource
import select
import signal
import sys
import threading
import time
import warnings
from functools import partial

import fiftyone as fo
import fiftyone.core.odm.database as database
import mongoengine
from pymongo import monitoring

_COMMANDS = {"insert", "update", "delete", "findAndModify", "createIndexes", "dropIndexes", "create", "drop"}
_FILE_EVENTS = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
_NEVER = 10**9


class _Points(monitoring.CommandListener):
    """Counts points at which something is written, and ends the process at one of them."""

    def __init__(self, last, happens):
        self.last, self.happens, self.count, self._lock = last, happens, 0, threading.Lock()

    def reached(self):
        with self._lock:
            if self.count == self.last:
                self.happens()
            self.count += 1

    def started(self, event):
        if self.happens is fill_disk:  # which is nothing to the database
            return
        stages = [next(iter(stage)) for stage in event.command.get("pipeline", ())]
        if event.command_name in _COMMANDS or {"$merge", "$out"} & set(stages):
            self.reached()

    def succeeded(self, event):
        pass

    def failed(self, event):
        pass

    def audit(self, event, arguments):
        if event == "open":
            path, mode, flags = arguments
            if (mode and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._file(path)
        elif event in _FILE_EVENTS:
            self._file(arguments[0])

    def _file(self, path):
        if isinstance(path, str | os.PathLike) and str(path).startswith(str(fo.config.default_dataset_dir)):
            self.reached()


def kill():
    """Ends this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk():
    """Lets every file that this process writes from now on end after 64 bytes, with an error, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))


def run_killed(action, point=_NEVER, happens=kill, after=None):
    """Runs an action in a fork that is killed before its ``point``-th write, counted from 0.

    Args:
        action: of no arguments
        point: which write
        happens: what happens there, :func:`kill` or :func:`fill_disk`
        after: seconds after which it is killed, wherever it is, from outside

    Returns:
        how many points there were, or None where it was killed

    Raises:
        RuntimeError: if the action failed by itself
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks: nothing else runs in this process now
        process = os.fork()
    if not process:
        os.close(reading)
        _in_child(action, point, writing, happens)
    os.close(writing)
    if after is not None:
        select.select([reading], [], [], after)
        os.kill(process, signal.SIGKILL)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    if not said.isdigit():
        raise RuntimeError(f"the action ended by itself: {said or status}")
    return int(said)


def run_at_once(*actions):
    """Runs actions in forks that begin at the same instant; returns what each said: empty, or why it refused."""
    sys.stdout.flush()
    sys.stderr.flush()
    begin, go = os.pipe()
    children = []
    for action in actions:
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            process = os.fork()
        if not process:
            os.close(go)
            _in_child(partial(_when_told, action, begin), _NEVER, writing)
        os.close(writing)
        children.append((process, reading))
    os.close(begin)
    time.sleep(0.3)  # until all are connected
    os.close(go)
    said = []
    for process, reading in children:
        with os.fdopen(reading) as pipe:
            said.append(pipe.read())
        os.waitpid(process, 0)
    return ["" if each.isdigit() else each for each in said]


def _when_told(action, begin):
    os.read(begin, 1)  # ends when the parent closes its end
    action()


def _in_child(action, point, writing, happens=kill):
    try:
        points = _Points(point, happens)
        monitoring.register(points)
        reconnect()
        sys.addaudithook(points.audit)
        try:
            action()
            said = str(points.count)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
    finally:
        os._exit(0)


def reconnect():
    """Gives this process a connection to the database that no other one has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mongoengine.disconnect_all()
        database._client = database._async_client = None
        database.get_db_client()
