from xml.etree import ElementTree

import polars as pl
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lens_pipeline.evaluation.completeness_plots import completeness_figure
from lens_pipeline.evaluation.drawings import points_on_test
from lens_pipeline.evaluation.figures import figure_png, figure_svg, new_figure, tell_at
from lens_pipeline.evaluation.plots import roc_figure
from lens_pipeline_tests.evaluation.conftest import Evaluated

SVG = "{http://www.w3.org/2000/svg}"


def drawn(words: str = "n = 5, 0.4 < p") -> tuple[str, bytes]:
    figure, axes = new_figure(3, 2)
    axes.plot([0, 1], [0, 1], "o")
    tell_at(axes, 0.5, 0.5, words)
    return figure_svg(figure, "tried"), figure_png(figure)


def test_words_of_a_mark_are_its_title_whatever_they_hold() -> None:
    words = '<script>alert("1")</script> & 0.4 < p'
    svg = drawn(words)[0]
    assert "<script" not in svg
    root = ElementTree.fromstring(svg)
    told = [group for group in root.iter(f"{SVG}g") if group.get("class") == "told"]
    assert [group.find(f"{SVG}title").text for group in told] == [words]  # type: ignore[union-attr]


def test_a_figure_is_the_same_bytes_each_time_it_is_drawn() -> None:
    assert drawn() == drawn()


def test_words_are_text_that_can_be_searched_and_nothing_speaks_to_the_whole_page() -> None:
    svg = drawn()[0]
    root = ElementTree.fromstring(svg)
    assert {text.text for text in root.iter(f"{SVG}text")} >= {"0.0", "0.2", "1.0"}
    assert not list(root.iter(f"{SVG}style"))
    assert not list(root.iter(f"{SVG}metadata"))


def test_what_only_speaks_is_not_seen_on_a_picture() -> None:
    figure, axes = new_figure(3, 2)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    bare = figure_png(figure)
    tell_at(axes, 0.5, 0.5, "here")
    assert figure_png(figure) == bare


def colours(figure: Figure) -> dict[str, str]:
    """Colour of each threshold's mark in a legend."""
    marks = zip(*figure.axes[0].get_legend_handles_labels(), strict=True)
    return {words: to_hex(mark[0].get_color()) for mark, words in marks if words.startswith("threshold")}  # type: ignore[index]


def test_a_threshold_has_one_colour_in_every_figure_though_others_are_not_resolved(survey: Evaluated) -> None:
    report, completeness = survey.report()[1], survey.completeness()[0]
    points = pl.DataFrame(survey.fit.table)
    unresolved = points["threshold"].is_null()
    assert unresolved.any()
    assert not unresolved[-1]
    marks = points_on_test(pl.DataFrame(report.read_table()), points)
    roc = roc_figure(pl.DataFrame(report.read_table("roc")), marks, 0.01, 5)
    along = completeness_figure(pl.DataFrame(completeness.table), "arc_snr")
    assert len(colours(roc)) > 1
    assert colours(roc) == colours(along)
