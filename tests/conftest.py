import pytest
from oracle import zoo

ZOO = zoo()


@pytest.fixture(params=list(ZOO), ids=list(ZOO))
def case(request):
    """One of the zoo of hierarchies, with ranks, parameters and data."""
    return ZOO[request.param]
