"""The backend under contract: each test of `test_contract` runs with every one of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from multimodel.types import Backend

from . import cases


@pytest.fixture(scope="module", params=cases.params())
def case(request: pytest.FixtureRequest) -> Iterator[cases.Case]:
    """One backend and what the suite must know of it; a local model is loaded once for the module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        made = cases.CASES[request.param](request, monkeypatch)
        yield made
        made.close()


@pytest.fixture
def model(case: cases.Case) -> Backend:
    """The backend, ready to answer."""
    return case.backend


@pytest.fixture
def fresh(case: cases.Case) -> Iterator[Backend]:
    """A second one for the same model, which nobody has asked yet."""
    made = case.fresh()
    yield made
    made.close()
