import numpy as np
import pandas as pd
import pytest

import mlfm

pytestmark = pytest.mark.portable

SHAPES = {
    "abilities": ((301, 24), {"ability": 5}, 0),
    "cells": ((765, 700), {"lineage": 4, "cell_type": 10, "type_x_louvain": 35}, 0),
    "employment": ((356, 100), {"aggregate": 4, "supersector": 15}, 0),
    "personality": ((4000, 135), {"domain": 6, "scale": 27}, 0),
    "stocks": ((1257, 452), {"sector": 10}, 212),
}


def test_all_are_listed():
    assert mlfm.datasets.list() == sorted(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_data_set_is_what_its_source_says(name):
    data = mlfm.datasets.load(name)
    shape, groups, missing = SHAPES[name]
    assert data.name == name
    assert data.endog.shape == shape
    assert data.endog.isna().sum().sum() == missing
    assert all(pd.api.types.is_numeric_dtype(dtype) for dtype in data.endog.dtypes)
    assert list(data.groups.index) == list(data.endog.columns)
    hierarchy = mlfm.Hierarchy(data.groups)
    assert hierarchy.n_groups.drop("global").to_dict() == groups
    assert list(data.features.index) == list(data.groups.index)
    assert "Cite" in data.source
    assert data.description
    assert "\n" not in data.description
    assert np.isfinite(data.endog.to_numpy()).sum() == data.endog.size - missing


def test_unknown():
    with pytest.raises(ValueError, match="no data set 'iris'; there are 'abilities'"):
        mlfm.datasets.load("iris")
