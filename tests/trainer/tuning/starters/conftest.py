import pytest
from support.small_corpus import documents


@pytest.fixture
def corpus() -> list[tuple[str, str]]:
    return list(documents())
