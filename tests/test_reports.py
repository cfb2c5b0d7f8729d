"""Tables and pages: every number is that of the results, every label means itself, and lines fit the page."""

import html.parser
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from oracle import make_case, zoo
from scipy import stats

import mlfm
from mlfm import MultilevelFactorModel
from mlfm.inference.weak_factors import WeakFactor, weak_factors
from mlfm.reporting.layout import cut, number, places

CASE = make_case([[0] * 24, [j // 8 for j in range(24)], [j // 4 for j in range(24)]], (2, 1, 0), nobs=100, seed=3)
NASTY = ["a_b", "50% <b>", "R&D", "x^2", "{y}", "c:\\d", "~e", "#1", "$f$", '"g"', "h|i", "é"]


@pytest.fixture(scope="module")
def results():
    return MultilevelFactorModel(CASE.frame, hierarchy=CASE.hierarchy, ranks=[2, 1, 0]).fit()


@pytest.fixture(scope="module")
def nasty():
    """Labels full of what means something to HTML and LaTeX."""
    labels = pd.DataFrame(
        {"R&D_level": [f"<g{j // 6}>&_%" for j in range(24)]}, index=[*NASTY, *CASE.frame.columns[12:]]
    )
    frame = CASE.frame.set_axis(labels.index, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlfm.MlfmWarning)
        return MultilevelFactorModel(frame, hierarchy=labels, ranks=[1, 1]).fit()


class Reader(html.parser.HTMLParser):
    """Tags must close as they open; keeps the text of cells."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.cells, self.tags = [], [], set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def columns_of(text, name):
    """The numbers in the line of a feature, by section of the table."""
    return [[float(word) for word in line.split()[1:]] for line in text.splitlines() if line.split()[:1] == [name]]


class TestSummaryFrame:
    def test_numbers_from_their_definitions(self, results):
        frame = results.summary_frame(alpha=0.1)
        assert list(frame.columns) == ["coef", "std err", "z", "P>|z|", "[0.05", "0.95]"]
        pd.testing.assert_index_equal(frame.index, results.params.index)
        np.testing.assert_array_equal(frame["coef"], results.params)
        np.testing.assert_array_equal(frame["std err"], results.bse)
        np.testing.assert_allclose(frame["z"], results.params / results.bse)
        np.testing.assert_allclose(frame["P>|z|"], 2 * stats.norm.cdf(-np.abs(results.params / results.bse)))
        np.testing.assert_allclose(frame[["[0.05", "0.95]"]], results.conf_int(0.1))

    def test_parts_are_labelled_as_the_parameters_are_named(self, results):
        whole = results.summary_frame()
        loadings = results.summary_frame("loadings")
        names = [f"loading[{feature}, {level}, {factor}]" for feature, level, factor in loadings.index]
        np.testing.assert_array_equal(loadings, whole.loc[names])
        assert len(loadings) == results.loadings.size
        uniquenesses = results.summary_frame("uniquenesses")
        np.testing.assert_array_equal(uniquenesses, whole.loc[[f"uniqueness[{name}]" for name in uniquenesses.index]])
        assert uniquenesses.index.name == "feature"
        coefficients = results.summary_frame("coefficients")
        assert coefficients.index.names == ["feature", "covariate"]
        np.testing.assert_array_equal(coefficients, whole.loc[[f"mean[{name}]" for name, _ in coefficients.index]])
        pd.testing.assert_frame_equal(coefficients, results.coefficients_table())
        assert loadings.loc[("x3", "level1", 1), "coef"] == results.loadings.loc["x3", ("level1", 1)]

    def test_what_has_no_standard_error_has_no_test(self):
        data = mlfm.datasets.load("abilities")
        model = MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[2, 1])
        with pytest.warns(mlfm.UniquenessFloorWarning):
            fitted = model.fit(start="top-down", search="none")
        frame = fitted.summary_frame("uniquenesses")
        on_floor = frame.loc[fitted.on_floor]
        assert np.isfinite(on_floor["coef"]).all()
        assert on_floor.drop(columns="coef").isna().all(axis=None)
        assert np.isfinite(frame.drop(index=fitted.on_floor)).all(axis=None)

    def test_without_standard_errors_it_says_why(self, results, tmp_path):
        results.with_cov_type("robust").save(tmp_path / "results.pickle")
        loaded = mlfm.load(tmp_path / "results.pickle")
        frame = loaded.summary_frame("loadings")
        assert list(frame.columns) == ["coef"]
        assert "loaded from a file" in frame.attrs["no_standard_errors"]
        for text in (loaded.summary("level1").as_text(), loaded.summary2().as_text()):
            assert "std err" not in text
            assert re.search("No standard errors: standard errors of cov_type='robust' cannot", " ".join(text.split()))

    def test_bad_questions(self, results):
        with pytest.raises(ValueError, match="which must be None, 'coefficients', 'loadings' or 'uniquenesses', not"):
            results.summary_frame("loading")
        for bad in (0, 1, 5, "x", None):
            with pytest.raises(ValueError, match="alpha must lie between 0 and 1"):
                results.summary_frame(alpha=bad)

    def test_labels_of_any_kind(self):
        columns = pd.MultiIndex.from_arrays(
            [[2, 1] * 6, pd.period_range("2020", periods=12, freq="Y")], names=[7, None]
        )
        data = pd.DataFrame(np.random.default_rng(0).standard_normal((50, 12)), columns=columns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mlfm.MlfmWarning)
            fitted = MultilevelFactorModel(data, ranks={"global": 1, 7: 1}).fit()
        frame = fitted.summary_frame("loadings")
        assert frame.index.get_level_values("level")[1] == 7
        assert frame["coef"].iloc[1] == fitted.loadings.iloc[0, 1]
        assert "2020" in fitted.summary(7).as_text()

    def test_large_tables(self):
        n = 50_000
        labels = pd.DataFrame({"g": np.arange(n) // 50}, index=[f"x{j}" for j in range(n)])
        rng = np.random.default_rng(0)
        model = MultilevelFactorModel(
            rng.standard_normal((8, n), dtype=np.float32) + rng.standard_normal((8, 1), dtype=np.float32),
            hierarchy=mlfm.Hierarchy(labels),
            ranks=[1, 1],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mlfm.MlfmWarning)
            fitted = model.fit(maxiter=1, start="top-down")
        errors = pd.Series(np.ones(len(fitted.params)), index=fitted.params.index)
        fitted.__dict__["bse"] = errors
        frame = fitted.summary_frame("loadings")
        assert frame.shape == (100_000, 6)


class TestSummary:
    def test_says_what_the_standard_errors_are(self, results):
        text = results.summary().as_text()
        assert re.search(r"Covariance Type: +expected", text)
        assert "summary_frame(): expected information." in " ".join(text.split())
        assert re.search(r"Covariance Type: +robust", results.with_cov_type("robust").summary().as_text())

    @pytest.mark.parametrize("level", ["global", "level1", "level2"])
    def test_of_a_level_has_every_number(self, results, level):
        text = results.summary(level).as_text()
        assert max(map(len, text.splitlines())) <= 80
        rank = results.ranks[level]
        loadings, uniquenesses = results.summary_frame("loadings"), results.summary_frame("uniquenesses")
        assert len(re.findall("4 features;|8 features;|24 features;", text)) == len(results.hierarchy.paths(level))
        for feature in results.hierarchy.features:
            *of_factors, of_uniqueness = columns_of(text, feature)
            assert len(of_factors) == rank
            for k, shown in enumerate(of_factors):
                np.testing.assert_allclose(shown, loadings.loc[(feature, level, k + 1)], rtol=0.02, atol=0.006)
            np.testing.assert_allclose(of_uniqueness[:6], uniquenesses.loc[feature], rtol=0.02, atol=0.006)
            assert of_uniqueness[6] == pytest.approx(results.communalities[feature], abs=5e-4)
        for share in results.variance_explained("group").loc[level]["share_within"]:
            assert f"{share:.4f}" in text

    def test_of_a_level_with_other_intervals(self, results):
        text = results.summary("global", alpha=0.1).as_text()
        assert "[0.05" in text
        feature = results.hierarchy.features[0]
        np.testing.assert_allclose(
            columns_of(text, feature)[0], results.summary_frame("loadings", 0.1).iloc[0], rtol=0.02, atol=0.006
        )

    def test_of_an_unknown_level(self, results):
        with pytest.raises(ValueError, match="unknown level 'sector'; the levels are 'global', 'level1', 'level2'"):
            results.summary("sector")

    def test_of_many_groups_and_features_says_how_many_more(self):
        n = 3000
        labels = pd.DataFrame({"g": [f"group {j // 100}" for j in range(n)]}, index=[f"x{j}" for j in range(n)])
        rng = np.random.default_rng(1)
        F = np.column_stack([np.ones(n), np.where(np.arange(n) % 100 == 99, 5.0, 0.5)])
        truth = mlfm.MultilevelCovariance(mlfm.Hierarchy(labels), F, np.ones(n), ranks=[1, 1])
        fitted = MultilevelFactorModel(truth.sample(50, rng), hierarchy=labels, ranks=[1, 1]).fit()
        text = fitted.summary("g").as_text()
        shown = text.count("100 features;")
        assert shown == 7  # 600 rows // (40 features x 2)
        assert f"({30 - shown} more groups: summary_frame() has them all)" in text
        assert text.count("(60 more)") == shown
        assert "  x99 " in text  # the largest loading of its group is among those shown
        assert columns_of(text, "x99")[0][0] == pytest.approx(fitted.loadings.loc["x99", ("g", 1)], rel=0.01)
        assert max(map(len, text.splitlines())) <= 80
        assert len(text.splitlines()) < 800

    @pytest.mark.filterwarnings("ignore::mlfm.MlfmWarning")
    @pytest.mark.parametrize("name", list(zoo()))
    def test_every_shape_has_all_tables(self, name):
        case = zoo()[name]
        fitted = MultilevelFactorModel(case.frame, hierarchy=case.hierarchy, ranks=list(case.ranks)).fit()
        for level in case.hierarchy.levels:
            summary = fitted.summary(level)
            assert max(map(len, summary.as_text().splitlines())) <= 80
            Reader(summary.as_html())
            assert summary.as_latex().count(r"\begin{tabular}") == summary.as_latex().count(r"\end{tabular}")
        second = fitted.summary2()
        assert max(map(len, second.as_text().splitlines())) <= 80
        Reader(second.as_html())
        for which in (None, "coefficients", "loadings", "uniquenesses"):
            assert fitted.summary_frame(which).columns[0] == "coef"

    def test_long_labels_stay_within_the_page(self):
        frame = CASE.frame.rename(columns=lambda name: f"a very long name for the feature called {name}")
        labels = CASE.hierarchy.to_frame().map(lambda label: f"a very long name for group {label}")
        labels = labels.set_axis(["a very long name for a level", "another one"], axis=1).set_axis(frame.columns)
        fitted = MultilevelFactorModel(frame, hierarchy=labels, ranks=[2, 1, 0]).fit()
        texts = [fitted.summary(level).as_text() for level in fitted.hierarchy.levels]
        for text in [*texts, fitted.summary2().as_text()]:
            assert max(map(len, text.splitlines())) <= 80
        assert re.search("x7 ", texts[0])  # the end of the name, which tells it from others


class TestNotes:
    def test_several_starts(self):
        data = mlfm.datasets.load("abilities")
        model = MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[2, 1])
        fitted = model.fit(n_starts=6, search="none")
        behind = fitted.starts["behind"]
        text = " ".join(fitted.summary().as_text().split())
        assert f"Maximum reached: {(behind < 0.1).sum()} of 6 climbs" in text
        lower = behind[behind >= 0.1]
        assert len(lower)
        span = f"{lower.min():.3g} to {lower.max():.3g}" if len(lower) > 1 else f"{lower.min():.3g}"
        ended = f"{len(lower)} climb{'s' if len(lower) > 1 else ''} ended {span} below"
        assert ended in text
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mlfm.UniquenessFloorWarning)
            alone = model.fit(search="none").summary().as_text()
        assert "1 of 1 climb" in alone
        assert "several maxima" not in alone

    def test_weak_factors_counted_by_hand(self):
        labels = pd.DataFrame({"g": list("bbbaaab")}, index=list("tuvwxyz"))
        F = np.array([[2.0, 1], [2, -1], [2, 0.1], [0, 1], [0, 2], [0, 3], [0.1, 1]])
        D = np.ones(7)
        found = weak_factors(mlfm.Hierarchy(labels), [1, 1], F, D)
        # b: 1 / sqrt(6) = 0.41 twice, 0.1 / sqrt(5.01) = 0.04, and 1 / sqrt(2.01) = 0.71; a: 0.71, 0.89, 0.95.
        assert found == []
        F[6, 1] = 0.1
        assert weak_factors(mlfm.Hierarchy(labels), [1, 1], F, D) == [WeakFactor("g", "b", 1, 2)]
        F[:2, 0] = 0.1
        assert weak_factors(mlfm.Hierarchy(labels), [1, 0], F[:, :1], D) == [WeakFactor("global", "global", 1, 1)]

    def test_weak_factors_are_noted(self, results):
        data = mlfm.datasets.load("abilities")
        fitted = MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit()
        text = " ".join(fitted.summary().as_text().split())
        assert (
            "1 factor with fewer than 3 standardised loadings of 0.3 or more (their number): ability 'math' 1 (0)"
            in text
        )


class TestNumbers:
    def test_decimals(self):
        # Two digits of the standard error, three of what is larger.
        assert number(0.69437, places(0.69437, 0.0412)) == "0.694"
        assert number(0.0412, places(0.69437, 0.0412)) == "0.041"
        assert number(12.3456, places(12.3456, 0.00123)) == "12.3456"
        assert number(1234.5, places(1234.5, 0.0)) == "1234"
        assert number(0.0, places(0.0, 0.0)) == "0.000"
        assert number(1e-12, places(1e-12, 0.0)) == "1.00e-12"
        assert number(-123456789.0, 0) == "-1.23e+08"
        assert number(float("nan"), 2) == ""

    def test_cut(self):
        assert cut("abcdefghij", 10) == "abcdefghij"
        assert cut("abcdefghijk", 10) == "abcde…hijk"


class TestEscaping:
    def summaries(self, results):
        return [results.summary(), results.summary("R&D_level"), results.summary2()]

    def test_html(self, nasty):
        for summary in self.summaries(nasty):
            text = summary.as_html()
            assert not re.search("[\U000f0000-\U000fffff]", text)
            reader = Reader(text)
            assert reader.tags <= {"table", "tr", "td", "th", "caption", "br", "thead", "tbody"}
            assert any("<g0>&_%" in cell for cell in reader.cells) or "&lt;g0&gt;&amp;_%" in text
        cells = " ".join(Reader(nasty.summary("R&D_level").as_html()).cells)
        for label in NASTY:
            assert label in cells

    def test_latex(self, nasty):
        for summary in self.summaries(nasty):
            text = summary.as_latex()
            assert not re.search("[\U000f0000-\U000fffff]", text)
            body = re.sub(r"\\[&%#$_{}]", "", text)  # escaped ones
            body = re.sub(r"^%\\caption.*$", "", body, flags=re.MULTILINE)  # statsmodels' comment
            assert not re.search(r"[#$%^~<>]", body)
            for line in body.splitlines():
                assert "_" not in line
                assert line.count("{") == line.count("}")
        text = nasty.summary("R&D_level").as_latex()
        for label in (r"a\_b", r"50\% \textless{}b\textgreater{}", r"R\&D", r"x\textasciicircum{}2", r"\{y\}"):
            assert label in text

    def test_as_text_has_labels_as_they_are(self, nasty):
        text = nasty.summary("R&D_level").as_text()
        for label in NASTY:
            assert label in text


@pytest.fixture(scope="module")
def page(nasty, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert mlfm.report(nasty, path) == path
    return path.read_text(encoding="utf-8")


class TestPage:
    def test_is_one_page_that_needs_nothing_else(self, page):
        reader = Reader(page)
        assert "script" not in reader.tags
        assert not re.search(r'(src|href)="(?!data:|#)', page)
        assert "@media print" in page
        identifiers = re.findall(r'<\w+ id="([^"]*)"', page)
        assert len(identifiers) == len(set(identifiers))

    def test_has_every_section_and_labels_as_they_are(self, page, nasty):
        for title in ("The fit", "Diagnostics", "Levels", "Largest loadings", "Uniquenesses", "Convergence", "Plots"):
            assert f"<h2>{title}</h2>" in page
        cells = re.findall("<td[^>]*>(.*?)</td>", page)
        assert f"{nasty.llf:.3f}" in cells
        assert "&lt;g0&gt;&amp;_%" in cells
        assert "<g0>" not in page
        assert page.count("<svg") == 10
        assert "<td>reached</td>" in page
        assert f"Maximum reached: {nasty.starts['reached'].sum()} of {len(nasty.starts)} climbs." in page

    def test_is_the_same_every_time(self, page, nasty, tmp_path):
        again = mlfm.report(nasty, str(tmp_path / "again.html"))
        assert again.read_text(encoding="utf-8") == page

    def test_of_loaded_results_leaves_out_what_needs_data(self, nasty, tmp_path):
        nasty.save(tmp_path / "results.pickle")
        page = mlfm.report(mlfm.load(tmp_path / "results.pickle"), tmp_path / "report.html").read_text(encoding="utf-8")
        assert "these results hold none" in page
        assert page.count("<svg") == 6
        Reader(page)

    def test_without_matplotlib_has_the_tables_and_says_so(self, nasty, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        page = mlfm.report(nasty, tmp_path / "report.html").read_text(encoding="utf-8")
        assert "they need matplotlib" in page
        assert "<svg" not in page
        assert "Largest loadings" in page
        Reader(page)

    def test_lists_what_is_on_the_floor(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        data = mlfm.datasets.load("abilities")
        model = MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[2, 1])
        with pytest.warns(mlfm.UniquenessFloorWarning):
            fitted = model.fit(start="top-down", search="none")
        page = mlfm.report(fitted, tmp_path / "floor.html").read_text(encoding="utf-8")
        for name in fitted.on_floor:
            assert f'<td class="text">{name}</td><td>{fitted.uniquenesses[name]:.3g}</td>' in page

    def test_says_that_a_fit_did_not_converge(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        data = mlfm.datasets.load("abilities")
        with pytest.warns(mlfm.ConvergenceWarning):
            stopped = MultilevelFactorModel(data.endog, hierarchy=data.groups, ranks=[1, 1]).fit(maxiter=3)
        page = mlfm.report(stopped, tmp_path / "stopped.html").read_text(encoding="utf-8")
        assert "The fit did NOT converge" in page

    def test_of_something_else(self, tmp_path):
        with pytest.raises(TypeError, match="results of a fit are needed, not dict"):
            mlfm.report({}, tmp_path / "report.html")


def test_results_do_not_import_matplotlib():
    code = "import sys, mlfm; mlfm.MultilevelFactorModel, mlfm.report; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
