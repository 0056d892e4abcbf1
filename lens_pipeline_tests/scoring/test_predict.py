"""Stamps from anywhere get the pipeline's own logits, or a reason; none is left out, and none depends on its neighbours."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from lens_pipeline.cli.main import main
from lens_pipeline.contracts.catalogue import PREDICTIONS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError, ScoringError
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.files import score_files
from lens_pipeline.scoring.fits_inputs import FitsOptions
from lens_pipeline.scoring.inputs import expand
from lens_pipeline.scoring.logits import score_rows
from lens_pipeline.scoring.model import Classifier
from lens_pipeline.scoring.predict import predict, predict_files
from lens_pipeline.stamps.decode import decode_pixels
from lens_pipeline.training.metrics import score_of
from lens_pipeline_tests.scoring.conftest import Trained

Row = dict[str, Any]
SIZE = 16


def _stamps_file(trained: Trained) -> Path:
    stamps = trained.home.open("tried", "stamps", version=trained.store.inputs["stamps"])
    return stamps.path("fragment-00000.parquet")


def _pixels(trained: Trained, contract: DatasetContract) -> dict[str, np.ndarray]:
    """Key of each stamp to the float32 pixels that stand in the parquet."""
    table = pq.read_table(_stamps_file(trained))
    pixels = np.zeros((table.num_rows, *contract.stamp_shape), np.float32)
    assert not any(decode_pixels(table["stamp_npz"].to_pylist(), contract, pixels))
    return dict(zip(table[contract.key].to_pylist(), pixels, strict=True))


@pytest.fixture(scope="module")
def classifier(trained: Trained) -> Classifier:
    return trained.opened()[0]


@pytest.fixture(scope="module")
def scored(trained: Trained) -> dict[str, float]:
    """Key of each stored row to the pipeline's own logit."""
    opened, store = trained.opened()
    return dict(
        zip(
            store.columns(["task_id"])["task_id"].to_pylist(),
            score_rows(opened, store, ScoringConfig())[:, 0],
            strict=True,
        )
    )


@pytest.fixture(scope="module")
def stamps(trained: Trained, classifier: Classifier) -> np.ndarray:
    """A few stamps, (row, band, y, x)."""
    return np.stack(list(_pixels(trained, classifier.contract).values())[:7])


def _rows(classifier: Classifier, names: list[str], folder: Path, **options: Any) -> list[Row]:
    out = folder / f"scores-{len(list(folder.glob('scores-*')))}.parquet"
    tally = predict_files(classifier, names, out, options=FitsOptions(**options))
    table = pq.read_table(out)
    PREDICTIONS.validate(table, where="the test")
    assert (tally.inputs, tally.rows) == (len(names), table.num_rows)
    assert tally.scored + tally.refused.total() == tally.rows
    return list(table.to_pylist())


def _why(rows: list[Row]) -> list[str | None]:
    return [row["reason"] for row in rows]


def test_an_array_gets_the_logits_that_the_pipeline_gave_the_same_stamps_bit_for_bit(
    trained: Trained, classifier: Classifier, scored: dict[str, float]
) -> None:
    pixels = _pixels(trained, classifier.contract)
    found = predict(classifier, np.stack(list(pixels.values())))
    assert len(pixels) == 192
    assert found.refusals == [None] * 192
    assert found.score.tolist() == [scored[key] for key in pixels]


def test_pixels_that_are_listed_twice_have_one_hash_and_it_is_the_stores(
    trained: Trained, classifier: Classifier, tmp_path: Path
) -> None:
    pixels = _pixels(trained, classifier.contract)
    key, stamp = next(iter(pixels.items()))
    np.save(tmp_path / "stamps.npy", np.stack([stamp, stamp, np.full_like(stamp, np.nan)]))
    index = trained.opened()[1].columns(["task_id", "pixel_hash"])
    stored = dict(zip(index["task_id"].to_pylist(), index["pixel_hash"].to_pylist(), strict=True))
    found = _rows(classifier, [str(tmp_path / "stamps.npy")], tmp_path)
    assert [row["pixel_hash"] for row in found] == [stored[key], stored[key], None]


def test_a_stamp_alone_scores_the_same_bits_as_among_others_wherever_it_stands(
    classifier: Classifier, stamps: np.ndarray
) -> None:
    together = predict(classifier, stamps).logits
    assert [predict(classifier, stamp).logits.tobytes() for stamp in stamps] == [row.tobytes() for row in together]
    assert predict(classifier, stamps[::-1]).logits[::-1].tobytes() == together.tobytes()
    assert predict(classifier, np.concatenate([stamps] * 40)).logits[-7:].tobytes() == together.tobytes()


def test_a_bad_stamp_in_an_array_is_refused_and_moves_no_other(classifier: Classifier, stamps: np.ndarray) -> None:
    bad = stamps.copy()
    bad[2, 1, 3, 3] = np.nan
    bad[4, 0] = 1.0
    found = predict(classifier, bad)
    assert [refusal and refusal.reason for refusal in found.refusals][1:6] == [
        None,
        "not_finite",
        None,
        "constant_band",
        None,
    ]
    assert np.isnan(found.logits[[2, 4]]).all()
    sound = [0, 1, 3, 5, 6]
    assert found.logits[sound].tobytes() == predict(classifier, stamps).logits[sound].tobytes()


def test_no_stamps_are_no_scores(classifier: Classifier, stamps: np.ndarray) -> None:
    assert predict(classifier, stamps[:0]).logits.shape == (0, 1)


@pytest.mark.parametrize("change", [lambda s: s[:, :2], lambda s: s[..., 1:], lambda s: s.astype(np.int32)])
def test_an_array_of_another_shape_or_type_is_refused_whole(
    classifier: Classifier, stamps: np.ndarray, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    with pytest.raises(ScoringError, match=r"takes floats of shape \(n, 3, 16, 16\)"):
        predict(classifier, change(stamps))


def test_three_classes_get_a_column_each_and_the_score_that_the_pipeline_ranks_by(
    trained_elsewhere: Trained, tmp_path: Path
) -> None:
    classifier, store = trained_elsewhere.opened()
    rows = _rows(classifier, [str(_stamps_file(trained_elsewhere))], tmp_path)
    logits = score_rows(classifier, store, ScoringConfig())
    keys = store.columns(["task_id"])["task_id"].to_pylist()
    ours = dict(
        zip(
            keys,
            zip(logits.tolist(), score_of(logits.astype(float)).astype(np.float32).tolist(), strict=True),
            strict=True,
        )
    )
    assert len(rows) == 128
    for row in rows:
        assert [row[f"logit_{name}"] for name in ("other", "ring", "spiral")] == ours[row["task_id"]][0]
        assert row["logit"] == ours[row["task_id"]][1]


def test_rows_of_a_parquet_are_all_counted_and_damage_is_a_row_with_its_reason(
    trained: Trained, classifier: Classifier, scored: dict[str, float], tmp_path: Path
) -> None:
    rows = pq.read_table(_stamps_file(trained)).slice(0, 20).to_pylist()
    rows[3]["stamp_npz"] = rows[3]["stamp_npz"][:-9]
    rows[5]["stamp_npz"] = None
    rows[8]["cutout_ok"] = 0
    rows[9]["task_id"] = None
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = _rows(classifier, [str(path)], tmp_path)
    assert [row["row"] for row in found] == list(range(20))
    assert {row["row"]: row["reason"] for row in found if row["reason"]} == {
        3: "not_a_zip",
        5: "null_blob",
        8: "cutout_not_ok",
    }
    assert all(row["logit"] == scored[row["task_id"]] for row in found if row["logit"] is not None and row["task_id"])
    assert found[9]["logit"] is not None


def test_a_parquet_needs_no_column_but_the_blobs(trained: Trained, classifier: Classifier, tmp_path: Path) -> None:
    table = pq.read_table(_stamps_file(trained)).slice(0, 3)
    pq.write_table(table.select(["stamp_npz"]), tmp_path / "blobs.parquet")
    pq.write_table(table.drop_columns(["stamp_npz"]), tmp_path / "none.parquet")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 and then nothing PAR1")
    names = [str(tmp_path / name) for name in ("blobs.parquet", "none.parquet", "no.parquet", "gone.parquet")]
    found = _rows(classifier, names, tmp_path)
    assert _why(found) == [None, None, None, "no_stamps", "unreadable", "unreadable"]
    assert [row["row"] for row in found] == [0, 1, 2, None, None, None]
    assert "'stamp_npz'" in found[3]["detail"]


def test_npz_and_npy_files_score_as_their_pixels_and_objects_are_never_unpickled(
    trained: Trained, classifier: Classifier, stamps: np.ndarray, tmp_path: Path
) -> None:
    names = {
        name: str(tmp_path / name)
        for name in ("one.npz", "one.npy", "many.npy", "objects.npy", "wide.npy", "short.npy")
    }
    Path(names["one.npz"]).write_bytes(pq.read_table(_stamps_file(trained))["stamp_npz"][0].as_py())
    np.save(names["one.npy"], stamps[0])
    np.save(names["many.npy"], stamps.astype(np.float64))
    np.save(names["objects.npy"], np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(names["wide.npy"], np.zeros((2, 3, 20, 20), np.float32))
    Path(names["short.npy"]).write_bytes(Path(names["many.npy"]).read_bytes()[:-50])
    found = _rows(classifier, list(names.values()), tmp_path)
    ours = predict(classifier, stamps).score.tolist()
    assert [row["logit"] for row in found[:9]] == [ours[0], ours[0], *ours]
    assert _why(found[9:]) == ["not_npy", "wrong_size", "not_npy"]


def test_an_input_of_no_rows_is_a_refusal_and_not_passed_over(
    trained: Trained, classifier: Classifier, stamps: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "none.npy", stamps[:0])
    pq.write_table(pq.read_table(_stamps_file(trained)).slice(0, 0), tmp_path / "none.parquet")
    found = _rows(classifier, [str(tmp_path / "none.npy"), str(tmp_path / "none.parquet")], tmp_path)
    assert [(row["row"], row["logit"]) for row in found] == [(None, None)] * 2
    assert _why(found) == ["no_stamps", "unreadable"]
    assert found[0]["detail"] == "it holds no row"


def _write(path: Path, pixels: np.ndarray, **header: Any) -> str:
    says = {"BUNIT": "nanomaggy", "PIXSCALE": 0.262, **header}
    fits.PrimaryHDU(pixels, fits.Header({k: v for k, v in says.items() if v is not None})).writeto(path)
    return str(path)


def test_fits_planes_cubes_and_a_file_a_band_score_as_the_same_arrays(
    classifier: Classifier, stamps: np.ndarray, tmp_path: Path
) -> None:
    wcs = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -0.262 / 3600, "CD2_2": 0.262 / 3600, "PIXSCALE": None}
    names = [
        _write(tmp_path / "planes.fits", stamps[0], **wcs),
        _write(tmp_path / "cube.fits", stamps),
        _write(tmp_path / "named.fits", stamps[0][[2, 0, 1, 1]], BANDS="zgri"),
        str(tmp_path / "{band}.fits"),
        str(tmp_path / "galaxy-*-{band}.fits"),
    ]
    for place, band in enumerate(classifier.contract.bands):
        _write(tmp_path / f"{band}.fits", stamps[:, place], BAND=band)
        for number in (1, 2):
            _write(tmp_path / f"galaxy-{number}-{band}.fits", stamps[number, place])
    names = expand(names, classifier.contract.bands)
    assert names[4:] == [str(tmp_path / f"galaxy-{number}-{{band}}.fits") for number in (1, 2)]
    ours = predict(classifier, stamps).score.tolist()
    found = _rows(classifier, names, tmp_path)
    assert [row["logit"] for row in found] == [ours[0], *ours, ours[0], *ours, ours[1], ours[2]]


def test_a_star_that_no_shell_expanded_is_every_file_that_is_there(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "a.npy"):
        (tmp_path / name).touch()
    found = expand([str(tmp_path / "*.parquet"), str(tmp_path / "*.fits")], ["g", "r"])
    assert found == [str(tmp_path / name) for name in ("a.parquet", "b.parquet", "*.fits")]


def test_larger_images_are_refused_or_cut_as_the_survey_stage_cuts_them(
    classifier: Classifier, stamps: np.ndarray, tmp_path: Path
) -> None:
    padded = np.pad(stamps, ((0, 0), (0, 0), (2, 3), (2, 3)))
    name = _write(tmp_path / "large.fits", padded)
    refused = _rows(classifier, [name], tmp_path)
    assert _why(refused) == ["wrong_size"]
    assert "21 x 21 pixels, a stamp has 16 x 16; --cut-centre" in refused[0]["detail"]
    cut = _rows(classifier, [name], tmp_path, cut_centre=True)
    assert [row["logit"] for row in cut] == predict(classifier, stamps).score.tolist()


@pytest.mark.parametrize(
    ("header", "reason", "says"),
    [
        ({"BUNIT": None}, "no_unit", "--flux-unit nanomaggy"),
        ({"BUNIT": "adu"}, "wrong_unit", "'adu'"),
        ({"PIXSCALE": 0.168}, "wrong_scale", "0.168 arcsec per pixel, 35.9% from the model's 0.262"),
        ({"PIXSCALE": None}, "no_scale", "neither a celestial WCS nor PIXSCALE"),
        ({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": -1e-4, "CD2_2": 1e-4}, "wrong_scale", "0.36 arcsec"),
        ({"BANDS": "gri"}, "wrong_band", "takes each of ['g', 'r', 'z'] once"),
    ],
)
def test_a_header_that_says_other_pixels_than_the_models_is_refused(
    classifier: Classifier, stamps: np.ndarray, tmp_path: Path, header: dict[str, Any], reason: str, says: str
) -> None:
    (row,) = _rows(classifier, [_write(tmp_path / "a.fits", stamps[0], **header)], tmp_path)
    assert (row["reason"], row["row"], row["logit"]) == (reason, None, None)
    assert says in row["detail"]


def test_a_unit_that_the_user_states_stands_only_where_the_file_states_none(
    classifier: Classifier, stamps: np.ndarray, tmp_path: Path
) -> None:
    silent = _write(tmp_path / "silent.fits", stamps[0], BUNIT=None)
    other = _write(tmp_path / "other.fits", stamps[0], BUNIT="adu")
    assert _why(_rows(classifier, [silent, other], tmp_path, flux_unit="nanomaggy")) == [None, "wrong_unit"]


def test_fits_that_is_damaged_compressed_or_of_other_planes_is_refused_and_the_rest_is_scored(
    classifier: Classifier, stamps: np.ndarray, tmp_path: Path
) -> None:
    sound = _write(tmp_path / "sound.fits", stamps[0])
    whole = Path(sound).read_bytes()
    (tmp_path / "short.fits").write_bytes(whole[:-3000])
    (tmp_path / "packed.fits").write_bytes(gzip.compress(whole))
    (tmp_path / "text.fits").write_text("no image")
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(stamps[0, 0])]).writeto(tmp_path / "tiles.fits")
    _write(tmp_path / "four.fits", np.concatenate([stamps[0], stamps[0][:1]]))
    (tmp_path / "claims.fits").write_bytes(
        whole.replace(b"NAXIS3  =                    3", b"NAXIS3  =             30000000")
    )
    order = ["short", "packed", "text", "tiles", "four", "claims", "gone", "sound"]
    found = _rows(classifier, [str(tmp_path / f"{name}.fits") for name in order], tmp_path)
    assert _why(found) == ["truncated", *["not_fits"] * 3, "wrong_band", "truncated", "unreadable", None]


def test_files_a_band_that_were_exchanged_or_are_missing_are_refused(
    classifier: Classifier, stamps: np.ndarray, tmp_path: Path
) -> None:
    for place, (band, says) in enumerate({"g": "g", "r": "z", "z": "r"}.items()):
        _write(tmp_path / f"x-{band}.fits", stamps[0, place], BAND=says)
        if band != "z":
            _write(tmp_path / f"y-{band}.fits", stamps[0, place])
    found = _rows(classifier, [str(tmp_path / "x-{band}.fits"), str(tmp_path / "y-{band}.fits")], tmp_path)
    assert _why(found) == ["wrong_band", "unreadable"]
    assert "says it is 'z', wanted 'r'" in found[0]["detail"]
    assert "y-z.fits" in found[1]["detail"]


def test_scores_never_replace_a_file_and_appear_whole(
    classifier: Classifier, stamps: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", stamps)
    there = tmp_path / "there.parquet"
    there.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        predict_files(classifier, [str(tmp_path / "a.npy")], there)
    assert there.read_text() == "mine"

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lens_pipeline.scoring.predict._table", die)
    with pytest.raises(KeyboardInterrupt):
        predict_files(classifier, [str(tmp_path / "a.npy")], tmp_path / "new.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "there.parquet"]


def test_the_command_scores_counts_and_says_with_which_model(
    trained: Trained, classifier: Classifier, stamps: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", stamps)
    out, folder = tmp_path / "scores.parquet", str(trained.classifier.folder)
    inputs = [str(tmp_path / "a.npy"), str(tmp_path / "gone.npy")]
    assert main(["predict", *inputs, "--folder", folder, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"lens_classifier {trained.classifier.version} of tried, test_resnet" in printed
    assert "2 inputs, 8 rows: 7 scored, 1 refused" in printed
    assert pq.read_table(out)["logit"].to_pylist() == [*predict(classifier, stamps).score.tolist(), None]
    assert main(["predict", inputs[1], "--folder", folder, "--out", str(tmp_path / "none.parquet")]) == 1
    assert main(["predict", inputs[0], "--out", str(tmp_path / "who.parquet")]) == 1
    assert "name either a preset" in capsys.readouterr().err


def test_a_step_that_loads_no_torch_has_files_scored_by_a_process_with_the_same_logits(
    trained: Trained, classifier: Classifier, tmp_path: Path
) -> None:
    name = str(_stamps_file(trained))
    found = score_files([trained.classifier], [name], flux_unit="", tta=False)
    PREDICTIONS.validate(found, where="test")
    assert found["logit"].to_pylist() == [row["logit"] for row in _rows(classifier, [name], tmp_path)]
