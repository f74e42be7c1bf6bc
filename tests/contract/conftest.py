"""The stores that the tests of the contract run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from parts import store_backends

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parts.store_backends import Backend


@pytest.fixture(scope="module", params=store_backends.NAMES)
def any_backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with store_backends.backend(request.param, tmp_path_factory.mktemp("store")) as backend:
        yield backend


@pytest.fixture
def backend(any_backend: Backend) -> Backend:
    """An empty backend of each kind."""
    any_backend.clear()
    return any_backend
