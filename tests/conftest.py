"""Fixtures and rules for all tests: no network, few threads, fixed seeds, photographs only where they lie."""

from __future__ import annotations

import os
import socket
from contextlib import nullcontext
from pathlib import Path

from tests import workers

# Read by the libraries when they are imported, so they are set before anything else.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.update(workers.own_share())

import pytest
import torch

from studio.memory import keep_freed_memory

keep_freed_memory()
pytest.register_assert_rewrite("tests.contract")

REPOSITORY = Path(__file__).resolve().parent.parent


def _photos_folder() -> Path:
    return Path(os.environ.get("STUDIO_PHOTOS") or REPOSITORY.parent / "shared" / "photos")


def pytest_collection_modifyitems(items):
    has_photos, has_gpu = _photos_folder().is_dir(), torch.cuda.is_available()
    for item in items:
        if "photos" in item.keywords and not has_photos:
            item.add_marker(pytest.mark.skip(reason="no folder of photographs: set STUDIO_PHOTOS"))
        if "gpu" in item.keywords and not has_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
    if workers.WORKERS > 1:
        workers.slow_files_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test marked `alone` waits until no other worker is at work, fixtures included, and they wait for it."""
    others = workers.WORKERS > 1
    with workers.turn(Path(item.config.option.basetemp).parent, "alone" in item.keywords) if others else nullcontext():
        return (yield)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photographs (old/, portraits/, pairs/, …); skips where there is none."""
    folder = _photos_folder()
    if not folder.is_dir():
        pytest.skip("no folder of photographs: set STUDIO_PHOTOS")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    torch.set_num_threads(workers.THREADS)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator on the CPU."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(request, monkeypatch):
    """Only tests marked `weights` may leave this machine (loopback is always open)."""
    if "weights" in request.keywords:
        return
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip is another process, where the patch below does not reach
    connect = socket.socket.connect

    def local_only(self, address):
        host = address[0] if isinstance(address, tuple) else ""
        if host and host != "localhost" and host != "::1" and not host.startswith("127."):
            raise OSError(f"a test tried to reach {host}: mark it `weights`, or give it its own server")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
