"""One writer at a time: of processes and of threads; who died has lost the lock, and who waits in vain is told why."""

import threading
import time

import fiftyone as fo
import pytest
from conftest import demo_samples
from fiftyone.core.odm import get_db_conn

from diffpath.dataset import lock
from diffpath.dataset.internals import release_lock, take_lock
from diffpath.dataset.liveness import Heartbeat
from diffpath.dataset.lock import writing


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(demo_samples("clean", 1))


def locks(dataset):
    return get_db_conn().diffpath_locks.count_documents({"_id": dataset._doc.id})


def held_by(dataset, holder, token="another"):
    assert take_lock(dataset, token, {"what": "renaming run 'a'", **holder.to_dict()}) is None


def test_threads_write_one_after_the_other(dataset):
    inside, most, order = [], [], []

    def write(number):
        with writing(dataset, "testing"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            dataset.info[str(number)] = number  # what one has read another has not changed meanwhile
            dataset.save()
            inside.remove(number)
            order.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert max(most) == 1 and sorted(order) == list(range(5))
    assert dataset.info == {str(number): number for number in range(5)}
    assert locks(dataset) == 0


def test_within_itself_it_does_nothing(dataset):
    with writing(dataset, "outer"), writing(dataset.view(), "inner") as same:
        assert same is dataset and locks(dataset) == 1
    assert locks(dataset) == 0


def test_an_error_gives_the_lock_back(dataset):
    with pytest.raises(KeyError), writing(dataset, "failing"):
        raise KeyError
    assert locks(dataset) == 0


def test_a_process_that_died_has_lost_it(dataset):
    now = Heartbeat.now()
    held_by(dataset, Heartbeat(now.process, now.machine, at=now.at, born=now.born - 100))  # its number was given again
    with writing(dataset, "testing"):
        assert locks(dataset) == 1


def test_a_machine_that_has_gone_silent_has_lost_it(dataset):
    held_by(dataset, Heartbeat(1, "another machine", at=time.time() - 300))
    with writing(dataset, "testing"):
        pass


def test_this_process_takes_back_what_it_could_not_give_back(dataset):
    held_by(dataset, Heartbeat.now())
    with writing(dataset, "testing"):
        pass


def test_whoever_waits_in_vain_is_told_for_whom(dataset, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.2)
    held_by(dataset, Heartbeat(17, "another machine", at=time.time()))
    with pytest.raises(ValueError, match="process 17 on 'another machine' .renaming run 'a'.; try again when"):
        with writing(dataset, "testing"):
            pass
    release_lock(dataset, "mine")  # of another token it stays
    assert locks(dataset) == 1
    release_lock(dataset, "another")


def test_what_others_wrote_is_seen_under_the_lock(dataset):
    stored = get_db_conn().datasets
    stored.update_one({"_id": dataset._doc.id}, {"$set": {"info.new": 1}})
    with writing(dataset, "testing"):
        assert dataset.info["new"] == 1
        sample = dataset.first()
        sample["after"] = 1  # samples in memory go on knowing their fields
        sample.save()
    assert dataset.values("after") == [1]


def test_two_datasets_have_two_locks(dataset, make_dataset):
    other = make_dataset(demo_samples("clean", 1))
    with writing(dataset, "one"), writing(other, "the other"):
        assert locks(dataset) == locks(other) == 1
    assert fo.dataset_exists(dataset.name)
