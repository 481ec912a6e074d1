import pytest


@pytest.fixture(autouse=True, scope="module")
def _without_xla():
    """XLA stays where the engine chooses it: this is what these tests are about."""
