"""The panel's state on the server's side: the App's copies may be old, and its events run side by side."""

import threading
import time
from types import SimpleNamespace

from diffpath.operators.panel.state import up_to_date_state

NAMES = ("rule", "level")


def event(panel_id, state, method="on_level"):
    return SimpleNamespace(params={"panel_id": panel_id, "panel_state": state, "__method__": method})


def test_an_event_with_an_older_copy_finds_what_the_last_one_has_left():
    first = event("a", {"rule": "score", "typed": 1})
    with up_to_date_state(first, NAMES):
        first.params["panel_state"].update(rule="count", level=12)
    late = event("a", {"rule": "score", "typed": 2})
    with up_to_date_state(late, NAMES):
        # what the panel sets is the newest; what the user types is the App's to say
        assert late.params["panel_state"] == {"rule": "count", "level": 12, "typed": 2}


def test_panels_do_not_share_their_state_and_one_that_is_opened_anew_begins_with_the_apps_copy():
    with up_to_date_state(event("b", {"rule": "count"}), NAMES):
        pass
    other, reopened = event("c", {}), event("b", {"rule": "score"}, "on_load")
    with up_to_date_state(other, NAMES), up_to_date_state(reopened, NAMES):
        assert other.params["panel_state"] == {} and reopened.params["panel_state"] == {"rule": "score"}


def test_a_change_of_the_state_in_place_does_not_change_what_is_remembered():
    first = event("d", {"rule": ["count"]})
    with up_to_date_state(first, NAMES):
        pass
    first.params["panel_state"]["rule"].append("score")
    second = event("d", {})
    with up_to_date_state(second, NAMES):
        assert second.params["panel_state"] == {"rule": ["count"]}


def test_events_of_one_panel_run_one_after_another():
    running, most = [], []

    def run():
        with up_to_date_state(event("e", {}), NAMES):
            running.append(1)
            most.append(len(running))
            time.sleep(0.02)
            running.pop()

    threads = [threading.Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_an_operator_without_a_panel_is_left_alone():
    context = SimpleNamespace(params={})
    with up_to_date_state(context, NAMES):
        assert context.params == {}
