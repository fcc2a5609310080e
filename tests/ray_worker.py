"""What goes wrong in the processes of a Ray cluster, once, at pictures that are named for it."""

import os
import resource
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path


def misbehave():
    """Runs in each of a cluster's processes when it begins; those that read pictures will fail at some."""
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Changes the module that reads pictures when it is imported, as most processes never do."""

    def find_spec(self, name, path=None, target=None):
        if name != "diffpath.folders.reading":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), _change(module))
        return spec


def _change(reading):
    load = reading.load_looks

    def load_looks(path, *how):
        name = Path(path).stem
        if name == "waits-once" and _is_first(path, ".pid"):
            time.sleep(600)  # until somebody kills the process
        if name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "memory-once" and _is_first(path, ".begun"):
            return _with_little_memory(lambda: load(path, *how))
        return load(path, *how)

    reading.load_looks = load_looks


def _is_first(path, ending):
    """Whether no process has been here before; the file then says which one is now."""
    partial = Path(f"{path}.{os.getpid()}")
    partial.write_text(str(os.getpid()))
    try:
        os.link(partial, f"{path}{ending}")
    except FileExistsError:
        return False
    finally:
        partial.unlink()
    return True


def _with_little_memory(function):
    """What a function does while this process gets hardly any more memory: 16 MiB."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, limits[1]))
    try:
        return function()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
