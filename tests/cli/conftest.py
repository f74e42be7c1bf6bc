"""Fixtures for the tests of the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from parts.store_folder import StoreFolder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    return StoreFolder(tmp_path)
