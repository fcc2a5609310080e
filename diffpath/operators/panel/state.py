"""The state of open panels, kept on this side as well.

The App keeps a panel's state and sends its copy with each event. Events run side by side,
and a copy may be older than the last answer: an event that saw the old state would draw
the panel from it, and undo what another has set. So events of a panel run one after
another, and each finds what the one before has left, whatever the App's copy says.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import fiftyone.operators as foo

_MOST_PANELS = 256  # that are remembered
_states: OrderedDict[str, dict[str, Any]] = OrderedDict()
_locks: dict[str, threading.Lock] = {}
_guard = threading.Lock()


@contextlib.contextmanager
def up_to_date_state(ctx: foo.ExecutionContext, names: Iterable[str]) -> Iterator[None]:
    """The panel's state during one event, the last one of this process where it has one.

    Args:
        ctx: the execution context of a panel's event
        names: the top-level names in the state that the panel sets and the App does not
    """
    panel_id = ctx.params.get("panel_id")
    if panel_id is None:
        yield
        return
    with _lock(panel_id):
        state = ctx.params.setdefault("panel_state", {})
        if ctx.params.get("__method__") != "on_load":  # the App opens the panel: its copy is what it was left with
            state.update(copy.deepcopy(_states.get(panel_id, {})))
        yield
        with _guard:
            _states[panel_id] = copy.deepcopy({name: state[name] for name in names if name in state})
            _states.move_to_end(panel_id)
            while len(_states) > _MOST_PANELS:
                _locks.pop(_states.popitem(last=False)[0], None)


def _lock(panel_id: str) -> threading.Lock:
    with _guard:
        return _locks.setdefault(panel_id, threading.Lock())
