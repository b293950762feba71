from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.worlds import column_store, tiny_model
from worldsim.data.store import EpisodeStore
from worldsim.world_model import WorldModel


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    folder: Path = tmp_path_factory.mktemp("columns")
    return column_store(folder / "episodes")


@pytest.fixture(scope="session")
def model(store: EpisodeStore) -> WorldModel:
    return tiny_model(store)
