"""Whether an unfinished run is still under way: it says so now and then, and says when it stops."""

import os
import platform
import time

from .record import write_config

_BEAT_SECONDS = 10.0
_TRUSTED_SECONDS = 600.0  # on this machine, where the process can be looked up
_TRUSTED_SECONDS_ELSEWHERE = 60.0


def beating(steps, dataset, run_key, config):
    """Passes a generator's steps on and records in the run how far it is.

    Whatever ends the generator, a closed tab included, is recorded. A killed process
    records nothing more, which :func:`is_alive` notices.
    """
    config["alive"] = {"process": os.getpid(), "machine": platform.node()}
    beaten = -_BEAT_SECONDS
    try:
        for step in steps:
            if time.monotonic() - beaten > _BEAT_SECONDS:
                beaten = time.monotonic()
                config["alive"].update(done=step.done, total=step.total, at=time.time())
                write_config(dataset, run_key, config)
            yield step
    except BaseException:
        config.pop("alive")
        if dataset.has_run(run_key):
            write_config(dataset, run_key, config)
        raise
    config.pop("alive")


def is_alive(config):
    """Whether the unfinished run of this record is under way."""
    alive = config.get("alive")
    if not alive or "at" not in alive:
        return False
    silent = time.time() - alive["at"]
    if alive["machine"] != platform.node():
        return silent < _TRUSTED_SECONDS_ELSEWHERE
    return silent < _TRUSTED_SECONDS and _process_exists(alive["process"])


def _process_exists(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True
