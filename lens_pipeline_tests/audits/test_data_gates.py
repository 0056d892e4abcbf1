"""Whatever tells stamps from their controls beside the arc is red by its own question; nothing else is."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lens_pipeline.audits.data_gates import QUESTIONS, Compared, answer, compare, data_gates
from lens_pipeline.audits.gate import Gate, Kind, Status, gate_table
from lens_pipeline.audits.pair_features import names_of
from lens_pipeline.contracts.catalogue import SHORTCUT_GATES
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.decode import decode_pixels
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import ParentSampleConfig, Source
from lens_pipeline.survey.pair_hosts import HostedPair, with_hosts
from lens_pipeline.survey.stamp_pairs import Kind as PairKind
from lens_pipeline.survey.stamp_pairs import PairReader
from lens_pipeline_tests import survey_like
from lens_pipeline_tests.survey import conftest as surveys
from lens_pipeline_tests.survey.conftest import Survey, real_config
from reliability.shortcut_gates import MARKS, with_first

CONTRACT = DatasetContract()
cubes = surveys.cubes
Made = tuple[Publication, Publication, list[HostedPair]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Stamps, parents and all pairs of a survey of 130 galaxies."""
    survey = Survey(Home(tmp_path_factory.mktemp("clean")))
    parent = survey.parents(ParentSampleConfig(n_galaxies=130, n_bricks=20))
    stamps = survey.stamps(parent, survey.manifest(parent, null_flux_share=1.0))
    return stamps, parent, list(with_hosts(PairReader(stamps, 130), parent))


@pytest.fixture(scope="module")
def clean(made: Made) -> dict[str, Gate]:
    return {gate.name: gate for gate in data_gates(*made[:2])}


def is_injection(hosted: HostedPair) -> bool:
    return hosted.pair.kind is PairKind.injections


def asked(pairs: list[HostedPair]) -> dict[str, Gate]:
    compared = compare(iter(pairs))
    return {question.name: answer(question, compared[question.of_flux], CONTRACT) for question in QUESTIONS}


def reds(gates: dict[str, Gate]) -> set[str]:
    return {name for name, gate in gates.items() if gate.status is Status.red}


def test_stamps_as_they_are_made_are_at_chance_by_every_question(clean: dict[str, Gate]) -> None:
    gates = clean
    SHORTCUT_GATES.validate(gate_table(gates.values()), where="here")
    assert {gate.kind for gate in gates.values()} == {Kind.gate, Kind.baseline}
    assert all(gate.status is Status.undecided for name, gate in gates.items() if gate.kind is Kind.gate), gates
    for name in ("probe_container", "probe_metadata", "injection_container", "injection_metadata"):
        # None of the 117 pairs that were judged differ: up to 3.7 % of all pairs may.
        assert (gates[name].value, gates[name].low, gates[name].high) == pytest.approx((0.5, 0.481, 0.519), abs=1e-3)
    assert gates["probe_pixels"].n_galaxies == 130
    assert 90 < gates["injection_pixels"].n_galaxies < 130
    assert "the limit 0.6" in str(gates["probe_pixels"].reason)


def test_arcs_make_stamps_brighter_and_that_is_reported_and_no_gate(clean: dict[str, Gate]) -> None:
    for name in ("baseline_total_flux", "baseline_blob_size"):
        gate = clean[name]
        assert gate.kind is Kind.baseline
        assert (gate.status, gate.limit) == (Status.ok, None)
        assert gate.low is not None
        assert gate.low > 0.5


@pytest.mark.parametrize("of_flux", [True, False], ids=["injections", "probes"])
@pytest.mark.parametrize("mark", list(MARKS))
def test_a_mark_is_red_by_what_it_marks(made: Made, mark: str, of_flux: bool) -> None:
    expected = {
        "noise 30 % larger": {"noise", "pixels"},
        # Outside the arc there is sky alone, which looks the same a pixel further.
        "one pixel off": set() if of_flux else {"pixels"},
        "border of zeros": {"border"},
        "rounded to float16": {"dtype", "pixels"},
        "compressed at another level": {"container"},
    }[mark]
    rng = np.random.default_rng(0)
    found = reds(asked([MARKS[mark](hosted, rng) for hosted in made[2] if is_injection(hosted) == of_flux]))
    kind = "injection" if of_flux else "probe"
    assert {f"{kind}_{group}" for group in expected} <= found
    assert not found & {f"{kind}_metadata", f"{kind}_container"} - {f"{kind}_{group}" for group in expected}


def test_a_column_that_differs_or_is_null_on_one_class_is_red_and_named(made: Made) -> None:
    def deeper(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "psfdepth_r": 1.01 * row["psfdepth_r"]}

    def unknown(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "psf_fwhm_used_g": None}

    for change, word in ((deeper, "psfdepth_r (+"), (unknown, "psf_fwhm_used_g is null (+")):
        pairs = [replace(hosted, pair=replace(hosted.pair, row=change(hosted.pair.row))) for hosted in made[2]]
        gates = asked([hosted for hosted in pairs if is_injection(hosted)])
        assert reds(gates) == {"injection_metadata"}
        assert word in str(gates["injection_metadata"].reason)


@pytest.mark.parametrize("on_both", [True, False], ids=["both", "one"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e200, 1.7e308])
def test_one_absurd_value_of_a_column_hides_nothing_of_what_it_tells(made: Made, value: float, on_both: bool) -> None:
    def marked(number: int, hosted: HostedPair) -> HostedPair:
        pair = hosted.pair
        row, control = {**pair.row, "psfdepth_r": 1.2 * pair.row["psfdepth_r"]}, pair.control
        if number == 3:
            row = {**row, "psfdepth_r": value}
            control = {**control, "psfdepth_r": -value} if on_both else control
        return replace(hosted, pair=replace(pair, row=row, control=control))

    gates = asked([marked(number, hosted) for number, hosted in enumerate(filter(is_injection, made[2]))])
    assert reds(gates) == {"injection_metadata"}
    assert "psfdepth_r (+" in str(gates["injection_metadata"].reason)


@pytest.mark.parametrize("value", [np.inf, np.nan, None])
@pytest.mark.parametrize("column", ["psfdepth_r", "ebv"])
def test_a_column_that_has_no_finite_number_on_injections_alone_is_red(made: Made, column: str, value: Any) -> None:
    pairs = [hosted for hosted in made[2] if is_injection(hosted)]
    rows = [replace(hosted.pair, row={**hosted.pair.row, column: value}) for hosted in pairs]
    gates = asked([replace(hosted, pair=pair) for hosted, pair in zip(pairs, rows, strict=True)])
    assert reds(gates) == {"injection_metadata"}
    assert f"{column} is null (+" in str(gates["injection_metadata"].reason)


def test_a_blob_that_numpy_wrote_is_red_by_its_headers_and_arcs_alone_are_not(made: Made) -> None:
    def numpys(hosted: HostedPair) -> HostedPair:
        return with_first(hosted, hosted.pair.pixels[0], survey_like.blob(hosted.pair.pixels[0]))

    found = reds(asked([numpys(hosted) for hosted in made[2] if is_injection(hosted)]))
    assert found == {"injection_container"}


def test_nothing_is_passed_where_nothing_was_measured(made: Made) -> None:
    gates = asked([hosted for hosted in made[2] if is_injection(hosted)])
    probes = [gate for name, gate in gates.items() if name.startswith("probe")]
    assert {gate.status for gate in probes} == {Status.not_measured}
    assert all("null_flux_share" in str(gate.reason) and gate.value is None for gate in probes)
    few = asked(made[2][:10])
    assert {gate.status for gate in few.values()} <= {Status.undecided, Status.not_measured}


def test_enough_pairs_at_chance_are_ok_and_a_slight_difference_of_most_is_red(made: Made) -> None:
    question = QUESTIONS[0]
    width = len(names_of("pixels", CONTRACT, (), of_flux=False))
    rows = list(np.random.default_rng(0).standard_normal((600, width)))
    seen = Compared(of_flux=False, n=600, differences={"pixels": rows})
    assert answer(question, seen, CONTRACT).status is Status.ok
    seen.differences["pixels"] = [row + 0.3 for row in rows]
    gate = answer(question, seen, CONTRACT)
    assert gate.status is Status.red
    assert gate.low is not None
    assert gate.limit is not None
    assert gate.low > gate.limit


def test_a_gate_within_its_limit_whose_interval_excludes_chance_is_ok_and_says_so() -> None:
    question = QUESTIONS[0]
    width = len(names_of("pixels", CONTRACT, (), of_flux=False))
    noise = np.random.default_rng(0).standard_normal((600, width))
    gates = [
        answer(question, Compared(of_flux=False, n=600, differences={"pixels": list(noise + shift)}), CONTRACT)
        for shift in (0.0, 0.045)
    ]
    assert [gate.status for gate in gates] == [Status.ok, Status.ok]
    at_chance, above = gates
    assert at_chance.reason is None
    assert above.low is not None
    assert above.low > 0.5
    assert "the interval excludes chance" in str(above.reason)


def test_real_pixels_that_both_share_are_equal_but_for_what_is_left_of_the_arc(
    tmp_path: Path, cubes: Callable[..., Path]
) -> None:
    survey = Survey(Home(tmp_path / "home"))
    parent = survey.parents(real_config(cubes()))
    stamps = survey.stamps(parent, survey.manifest(parent, null_flux_share=1.0))
    for of_flux, seen in compare(with_hosts(PairReader(stamps, 100), parent)).items():
        assert seen.n > 0
        for group in ("pixels", "noise", "border", "dtype", "container"):
            assert not np.any(seen.differences.get(group, [])), (of_flux, group)


def test_stamps_of_a_users_own_are_asked_by_the_columns_that_they_have(tmp_path: Path) -> None:
    survey = Survey(Home(tmp_path / "home"))

    def asked_of(name: str, rows: list[dict[str, Any]]) -> dict[str, Gate]:
        folder = survey_like.write(tmp_path / name, rows, n_files=1)
        parent = survey.parents(ParentSampleConfig(source=Source.external_stamps, folder=str(folder)))
        return {gate.name: gate for gate in data_gates(survey.stamps(parent, survey.manifest(parent)), parent)}

    rows = survey_like.rows(60, 12)
    for gates in (
        asked_of("placed", rows),
        asked_of("named", [{**row, "ra": None, "galaxy_id": row["task_id"].split("-")[1]} for row in rows]),
    ):
        for name in ("injection_container", "injection_metadata"):
            assert (gates[name].n_galaxies, gates[name].value, gates[name].status) == (60, 0.5, Status.undecided)
        assert "lack columns" in str(gates["injection_pixels"].reason)
        assert gates["probe_pixels"].status is Status.not_measured
    gates = asked_of("neither", [{**row, "ra": None} for row in rows])
    assert {gate.status for gate in gates.values()} == {Status.not_measured}
    assert "no injection stands in one file with a control" in str(gates["injection_metadata"].reason)


def asked_of_files(folder: Path, *files: list[dict[str, Any]]) -> dict[str, Gate]:
    """Ask a user's own files, each of its own rows."""
    for number, rows in enumerate(files):
        survey_like.write(folder / str(number), rows, n_files=1)
        (folder / str(number) / "part-000.parquet").rename(folder / f"{number}.parquet")
        (folder / str(number)).rmdir()
    survey = Survey(Home(folder / "home"))
    parent = survey.parents(ParentSampleConfig(source=Source.external_stamps, folder=str(folder)))
    return {gate.name: gate for gate in data_gates(survey.stamps(parent, survey.manifest(parent)), parent)}


def with_arc(rows: list[dict[str, Any]], **changed: Any) -> list[dict[str, Any]]:
    """Change columns of the injections."""
    return [row if row["lens_model"] == "CONTROL" else {**row, **changed} for row in rows]


def written_here(row: dict[str, Any]) -> dict[str, Any]:
    pixels = np.zeros((1, *CONTRACT.stamp_shape), np.float32)
    assert decode_pixels([row["stamp_npz"]], CONTRACT, pixels) == [None]
    return {"stamp_npz": encode_stamp(pixels[0], CONTRACT)}


@cache
def _rows() -> list[dict[str, Any]]:
    return survey_like.rows(120, 30)


def of_galaxies(start: int, stop: int) -> list[dict[str, Any]]:
    return _rows()[2 * start : 2 * stop]


def test_what_tells_the_classes_apart_in_one_of_a_users_files_is_found_whichever_it_is(tmp_path: Path) -> None:
    clean, marked = of_galaxies(0, 40), of_galaxies(40, 120)
    other_writer = [row if row["lens_model"] == "CONTROL" else row | written_here(row) for row in marked]
    for name, files in (("last", (clean, other_writer)), ("first", (other_writer, clean))):
        gates = asked_of_files(tmp_path / name, *files)
        assert gates["injection_container"].n_galaxies == 120
        assert reds(gates) == {"injection_container"}


def test_a_column_that_only_some_of_a_users_files_have_is_compared(tmp_path: Path) -> None:
    with_depth = [{**row, "psfdepth_r": 100.0} for row in of_galaxies(40, 120)]
    gates = asked_of_files(tmp_path / "set", of_galaxies(0, 40), with_arc(with_depth, psfdepth_r=120.0))
    assert reds(gates) == {"injection_metadata"}
    assert "psfdepth_r (+" in str(gates["injection_metadata"].reason)


def test_columns_that_no_contract_declares_are_told_by_name_and_are_no_gate(tmp_path: Path) -> None:
    rows = [{**row, "airmass": 0.0, "exposures": 5, "tags": [1]} for row in of_galaxies(0, 60)]
    gates = asked_of_files(tmp_path / "set", with_arc(rows, airmass=1.0, tags=[2]))
    gate = gates["baseline_undeclared_columns"]
    SHORTCUT_GATES.validate(gate_table(gates.values()), where="here")
    assert (gate.kind, gate.status, gate.value, gate.n_galaxies) == (Kind.baseline, Status.ok, 1.0, 60)
    assert "1 of 2 columns differ within pairs: airmass." in str(gate.reason)
    assert gates["injection_metadata"].value == 0.5
    assert "baseline_undeclared_columns" not in asked_of_files(tmp_path / "none", of_galaxies(0, 20))


def test_a_users_file_of_which_nothing_could_be_asked_leaves_gates_undecided(tmp_path: Path) -> None:
    rows = of_galaxies(0, 90)
    pairs, others = rows[:100], rows[100:]
    injections, controls = (
        [row for row in others if (row["lens_model"] == "CONTROL") == alone] for alone in (False, True)
    )
    gate = asked_of_files(tmp_path / "set", pairs, injections, controls)["injection_container"]
    assert gate.status is Status.undecided
    whole = Compared(of_flux=True, n=600, differences={"container": [np.zeros(9)] * 600})
    question = next(question for question in QUESTIONS if question.name == "injection_container")
    assert answer(question, whole, CONTRACT).status is Status.ok
    left = answer(question, replace(whole, left_out="2 of 3 files were asked"), CONTRACT)
    assert (left.status, left.value, left.reason) == (Status.undecided, 0.5, "2 of 3 files were asked")
