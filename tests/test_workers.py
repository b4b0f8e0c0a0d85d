"""The suite in several processes: a test that measures time has the machine to itself, and nobody starves."""

import subprocess
import sys
import threading
import time

import pytest

from tests import workers


def test_together_and_alone(tmp_path):
    """Two share the room; one who wants it alone waits for both, and who comes later waits for that one."""
    order, inside = [], threading.Barrier(3)

    def guest():
        with workers.turn(tmp_path, alone=False):
            inside.wait(10)  # both, and the test: they are in at once
            time.sleep(0.3)
            order.append("guest")

    def one(name, alone):
        with workers.turn(tmp_path, alone):
            order.append(name)
            time.sleep(0.3)
            order.append(name)

    threads = [threading.Thread(target=guest) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    threads += [threading.Thread(target=one, args=("alone", True)), threading.Thread(target=one, args=("late", False))]
    for thread in threads[2:]:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(10)
    assert order == ["guest", "guest", "alone", "alone", "late", "late"]


def test_an_error_gives_the_room_back(tmp_path):
    with pytest.raises(ZeroDivisionError), workers.turn(tmp_path, alone=True):
        _ = 1 / 0
    with workers.turn(tmp_path, alone=True):
        pass


def test_what_a_worker_has_to_itself():
    code = """
import os
from tests import workers
os.environ.update(workers.own_share())
print(workers.THREADS, *(os.environ.get(n) for n in ("OMP_NUM_THREADS", "GRADIO_SERVER_PORT", "GRADIO_TEMP_DIR")))
"""

    def told(**environment):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
        return done.stdout.split()

    root = workers.__file__.removesuffix("tests/workers.py")
    assert told()[1:] == ["None"] * 3
    many = {"PYTEST_XDIST_WORKER_COUNT": "1000"}
    first, second = (told(**many, PYTEST_XDIST_WORKER=name) for name in ("gw0", "gw1"))
    assert first[:3] == ["1", "1", "7860"] and second[:3] == ["1", "1", "7960"]
    assert first[3] != second[3]
    assert told(**many, PYTEST_XDIST_WORKER="gw0", OMP_NUM_THREADS="3")[1] == "3"
