from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment of the test's own, written and not started."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    deployment.write()
    yield deployment
    if deployment.process is not None:
        deployment.stop()
