from xml.etree import ElementTree

from lens_pipeline.evaluation.figures import figure_png, figure_svg, new_figure, tell_at

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
