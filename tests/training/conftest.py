"""What trainings on toy networks share."""

import pytest

from studio import weights
from studio.find import FaceFinder
from studio.identity.encoder import IdentityEncoder
from studio.networks.generator import Generator
from studio.training import directions
from tests import tiny


@pytest.fixture
def toy_networks(monkeypatch):
    """Toys where the fits of the latent space load the real generator, finder and encoder."""
    monkeypatch.setattr(weights, "path", lambda name: name)
    monkeypatch.setattr(Generator, "from_pretrained", classmethod(lambda cls, folder: tiny.varied_generator()))
    monkeypatch.setattr(FaceFinder, "from_pretrained", classmethod(lambda cls: tiny.finder()))
    encoder = IdentityEncoder(tiny.identity_net())
    monkeypatch.setattr(IdentityEncoder, "from_pretrained", classmethod(lambda cls: encoder))
    monkeypatch.setattr(directions, "EFFECT_FACES", 2)
