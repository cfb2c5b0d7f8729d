import pytest
import statsmodels.formula
from oracle import zoo

ZOO = zoo()


@pytest.fixture(params=list(ZOO), ids=list(ZOO))
def case(request):
    """One of the zoo of hierarchies, with ranks, parameters and data."""
    return ZOO[request.param]


@pytest.fixture
def formula_options():
    """statsmodels' options for formulas, put back at the end."""
    options = getattr(statsmodels.formula, "options", None)
    if options is None:
        pytest.skip("statsmodels before 0.15 has patsy alone, and no options")
    before = options.formula_engine, options.ordering
    yield options
    options.formula_engine, options.ordering = before


@pytest.fixture(params=["patsy", "formulaic"])
def engine(request):
    """Each of the formula engines; patsy is what statsmodels uses where nothing can be set."""
    if request.param == "formulaic" or hasattr(statsmodels.formula, "options"):
        pytest.importorskip(request.param)
        request.getfixturevalue("formula_options").formula_engine = request.param
    return request.param
