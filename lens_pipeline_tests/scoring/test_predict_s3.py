"""Stamps at s3:// get the bits that the same files get on disk, through the pipeline's own client and cache."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from lens_pipeline.cli.main import main
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.scoring.inputs import expand
from lens_pipeline.scoring.model import Classifier
from lens_pipeline.scoring.predict import predict_files
from lens_pipeline.storage import sources
from lens_pipeline_tests.s3_servers import Bucket
from lens_pipeline_tests.scoring.conftest import Trained
from lens_pipeline_tests.scoring.test_predict import _pixels, _stamps_file

BANDS = ("g", "r", "z")


@pytest.fixture
def bucket(moto_s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("LENS_PIPELINE_CACHE", str(tmp_path / "cache"))
    yield moto_s3
    sources._let_go()


@pytest.fixture
def classifier(trained: Trained) -> Classifier:
    return trained.opened()[0]


@pytest.fixture
def folder(trained: Trained, classifier: Classifier, tmp_path: Path) -> Path:
    """A file of each kind."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    pixels = np.stack(list(_pixels(trained, classifier.contract).values())[:5])
    (folder / "a.parquet").write_bytes(_stamps_file(trained).read_bytes())
    np.save(folder / "b.npy", pixels)
    (folder / "c.npz").write_bytes(pq.read_table(_stamps_file(trained))["stamp_npz"][0].as_py())
    header = {"BUNIT": "nanomaggy", "PIXSCALE": classifier.contract.pixel_scale_arcsec}
    fits.PrimaryHDU(pixels[0], fits.Header(header)).writeto(folder / "d.fits")
    for number in (1, 2):
        for place, band in enumerate(BANDS):
            fits.PrimaryHDU(pixels[number, place], fits.Header(header)).writeto(folder / f"e{number}-{band}.fits")
    return folder


def upload(bucket: Bucket, folder: Path) -> None:
    for path in folder.iterdir():
        bucket.client().put_object(Bucket=bucket.name, Key=f"in/{path.name}", Body=path.read_bytes())
    bucket.client().put_object(Bucket=bucket.name, Key="in/below/e3-g.fits", Body=b"a folder below")


def scored(classifier: Classifier, names: list[str], out: Path) -> list[dict[str, Any]]:
    predict_files(classifier, expand(names, BANDS), out)
    return list(pq.read_table(out).to_pylist())


def test_every_kind_of_file_scores_the_same_bits_from_s3_as_from_disk_and_is_fetched_once(
    classifier: Classifier, bucket: Bucket, folder: Path, tmp_path: Path
) -> None:
    upload(bucket, folder)
    inputs = ["a.parquet", "b.npy", "c.npz", "d.fits", "e*-{band}.fits"]
    ours = scored(classifier, [f"{folder}/{name}" for name in inputs], tmp_path / "ours.parquet")
    names = [f"{bucket.address}/in/{name}" for name in inputs]
    found = scored(classifier, names, tmp_path / "found.parquet")
    assert [row["input"] for row in found] == [
        row["input"].replace(str(folder), f"{bucket.address}/in") for row in ours
    ]
    assert [row | {"input": ""} for row in found] == [row | {"input": ""} for row in ours]
    assert sum(row["logit"] is not None for row in found) == 192 + 5 + 1 + 1 + 2
    counts = sources._connection()[1].counts
    assert counts["fetched"] == 4 + 2 * 3
    scored(classifier, names, tmp_path / "again.parquet")
    assert counts["fetched"] == 4 + 2 * 3


def test_a_star_at_s3_means_every_object_of_that_folder_whatever_the_kind(bucket: Bucket, folder: Path) -> None:
    upload(bucket, folder)
    at = f"{bucket.address}/in"
    assert expand([f"{at}/*.fits"], BANDS) == [
        f"{at}/{name}" for name in ("d.fits", *(f"e{number}-{band}.fits" for number in (1, 2) for band in BANDS))
    ]
    assert expand([f"S3://{bucket.name}/in/e*-{{band}}.fits"], BANDS) == [
        f"{at}/e1-{{band}}.fits",
        f"{at}/e2-{{band}}.fits",
    ]
    assert expand([f"{at}/none*.npy"], BANDS) == [f"{at}/none*.npy"]
    with pytest.raises(ConfigError, match="can't be a bucket's name"):
        expand(["s3://any*/a.npy"], BANDS)


def test_an_object_that_is_gone_damaged_or_no_stamp_is_a_row_with_its_reason_and_its_own_name(
    classifier: Classifier, bucket: Bucket, folder: Path, tmp_path: Path
) -> None:
    (folder / "e1-r.fits").write_bytes((folder / "e1-r.fits").read_bytes()[:-2500])
    (folder / "b.npy").write_bytes((folder / "b.npy").read_bytes()[:-50])
    (folder / "a.parquet").write_bytes(b"PAR1 and then nothing PAR1")
    upload(bucket, folder)
    inputs = ["gone.npy", "gone-{band}.fits", "e1-{band}.fits", "b.npy", "a.parquet", "d.fits"]
    found = scored(classifier, [f"{bucket.address}/in/{name}" for name in inputs], tmp_path / "out.parquet")
    assert [row["reason"] for row in found] == ["unreadable", "unreadable", "truncated", "not_npy", "unreadable", None]
    assert f"there is no object {bucket.address}/in/gone.npy" in found[0]["detail"]
    assert "e1-r.fits claims" in found[2]["detail"]
    assert f"{bucket.address}/in/a.parquet" in found[4]["detail"]


def test_an_object_that_is_too_large_to_be_a_stamp_is_refused_by_its_size_and_not_fetched(
    classifier: Classifier, bucket: Bucket, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(bucket, folder)
    monkeypatch.setattr("lens_pipeline.scoring.inputs._LARGEST_NPZ", 1000)
    (found,) = scored(classifier, [f"{bucket.address}/in/c.npz"], tmp_path / "out.parquet")
    assert found["reason"] == "too_large"
    assert "1,000 is the cap" in found["detail"]
    assert sources._connection()[1].counts["fetched"] == 0


def test_an_object_that_was_replaced_is_read_anew(
    classifier: Classifier, bucket: Bucket, folder: Path, tmp_path: Path
) -> None:
    name = f"{bucket.address}/in/b.npy"
    upload(bucket, folder)
    first = scored(classifier, [name], tmp_path / "first.parquet")
    np.save(folder / "b.npy", np.load(folder / "b.npy")[::-1])
    upload(bucket, folder)
    second = scored(classifier, [name], tmp_path / "second.parquet")
    assert [row["logit"] for row in second] == [row["logit"] for row in first][::-1]


def test_without_credentials_the_command_says_which_variable_is_missing_and_writes_nothing(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(variable, raising=False)
    out = tmp_path / "out.parquet"
    inputs = ["s3://bucket/a.npy", "--folder", str(trained.classifier.folder)]
    assert main(["predict", *inputs, "--out", str(out)]) == 1
    assert "AWS_ACCESS_KEY_ID" in capsys.readouterr().err
    assert not out.exists()
