import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lens_pipeline.cli.diagnose import read_records
from lens_pipeline.cli.main import main
from lens_pipeline_tests.evaluation.synthetic import draw, publish
from lens_pipeline_tests.evaluation.test_diagnosis import AUDITED


def test_a_published_table_is_diagnosed_with_its_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = list(dict.fromkeys(name for row in AUDITED for name in row))
    lines = [",".join(names), *(",".join(row.get(name, "").replace(",", "") for name in names) for row in AUDITED)]
    csv = tmp_path / "history.csv"
    csv.write_text("\n".join(lines) + "\n")
    assert main(["diagnose", str(csv)]) == 1
    told = capsys.readouterr().out
    assert "!! saturation ties: found" in told
    assert "about 46 (43 to 48 by rounding) of 65,090 negatives" in told
    assert "ranking collapse: not found" in told


def test_json_rows_columns_and_a_history_of_ours_are_read_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = [{"epoch": i, "train_loss": 0.5 / (i + 1), "val_loss": 0.4 + 0.1 * i} for i in range(4)]
    columns = {name: [epoch[name] for epoch in epochs] for name in epochs[0]}
    files = {
        "rows.json": json.dumps(epochs),
        "columns.json": json.dumps({"history": columns}),
        "history.jsonl": "".join(json.dumps({"event": "epoch", **epoch}) + "\n" for epoch in epochs),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        assert main(["diagnose", str(tmp_path / name)]) == 1
        assert "!! overfitting: found" in capsys.readouterr().out


def test_a_table_of_scores_is_measured_and_the_rows_of_the_split_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.arange(2000) % 2
    logit = np.random.default_rng(0).normal(size=2000) + 3 * label
    pl.DataFrame({"label": label, "logit": logit}).write_parquet(tmp_path / "scores.parquet")
    assert main(["diagnose", str(tmp_path / "scores.parquet"), "--rows", "2000"]) == 0
    capsys.readouterr()
    assert main(["diagnose", str(tmp_path / "scores.parquet"), "--rows", "9000"]) == 1
    assert "2,000 of the split's 9,000 rows were evaluated" in capsys.readouterr().out


def test_rows_of_test_are_left_out_of_scores_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.arange(3000) % 2
    split = np.repeat(["val_select", "test"], [2000, 1000])
    logit = np.random.default_rng(0).normal(size=3000) + 3 * label * (split == "val_select")
    path = tmp_path / "scores.parquet"
    pl.DataFrame({"label": label, "logit": logit, "split": split}).write_parquet(path)
    assert main(["diagnose", str(path)]) == 0
    line = "1,000 rows of test were left out: they are read through the frozen operating point alone"
    assert line in capsys.readouterr().out
    (record,) = read_records(path)
    assert (record.rows, record.n_negatives, record.auroc and record.auroc > 0.95) == (2000, 1000, True)


def test_published_scores_are_diagnosed_without_known_lenses_withheld_and_test_rows_each_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two rows a galaxy.
    stamps = draw({"train": 30, "val_select": 200, "val_calibrate": 50, "test": 20, "known_lens": 15, "withheld": 10})
    scores = publish(stamps, tmp_path).scores
    main(["diagnose", str(scores.path("scores.parquet"))])
    told = capsys.readouterr().out
    assert "30 rows of known_lens were left out: they are lenses that are labelled as controls" in told
    assert "20 rows of withheld were left out: whether they are of test is not told" in told
    assert "40 rows of test were left out" in told
    (record,) = read_records(scores.path("scores.parquet"))
    assert (record.rows, record.n_negatives, record.n_positives) == (500, 250, 250)


@pytest.mark.parametrize(("name", "content"), [("gone.csv", None), ("bad.json", "{"), ("no.json", "3")])
def test_a_file_that_holds_no_table_is_refused_in_a_sentence(
    name: str, content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    assert main(["diagnose", str(tmp_path / name)]) == 1
    assert f"{name} can't be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("0,-1.0\n,0.5\n1,2.0", "1 of 3 rows of {} have no label, which is 0 or the number of a class, but nothing"),
        ("0,-1.0\n-1,0.5\n1,2.0", "1 of 3 rows of {} have no label, which is 0 or the number of a class, but -1"),
        (
            "0.5,-1.0\n1.5,0.5\n1,2.0",
            "2 of 3 rows of {} have no label, which is 0 or the number of a class, but 0.5, 1.5",
        ),
        ("lens,-1.0\n0,0.5", "1 of 2 rows of {} have no label, which is 0 or the number of a class, but lens"),
        ("0,high\n1,0.5", "1 of 2 rows of {} have no finite logit but high"),
        ("0,nan\n1,0.5", "1 of 2 rows of {} have no finite logit but nan"),
    ],
)
def test_scores_whose_label_or_logit_is_none_are_refused_and_counted(
    rows: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(f"label,logit\n{rows}\n")
    assert main(["diagnose", str(path)]) == 1
    assert says.format(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("label,logit\n", "the table of scores has no row"),
        ("label,logit,split,epoch\n0,1,train,7\n1,2,train,7\n", "epoch 7: all 2 rows are of the split train"),
        ("label,logit,split\n0,1,test\n1,2,test\n", "epoch 0: all 2 rows are of the split test"),
        ("label,logit,split\n0,1,test\n0,2,known_lens\n", "epoch 0: all 2 rows are of the splits test, known_lens"),
        ("label,logit,split\n0,1,\n1,2,val\n", "1 of 2 rows are of a split that isn't known: null"),
        ("label,logit,split\n0,1,Test\n1,2,val\n", "1 of 2 rows are of a split that isn't known: Test"),
        ("label,logit,epoch\n0,1,last\n1,2,1\n", "have no epoch, which is a whole number, but last"),
    ],
)
def test_scores_of_nothing_unseen_are_refused_in_a_sentence(
    content: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(content)
    assert main(["diagnose", str(path)]) == 1
    assert says in capsys.readouterr().err


def test_epochs_of_scores_in_a_csv_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("label,logit,epoch\n" + "".join(f"{i % 2},{i},{epoch}\n" for epoch in (2, 10) for i in range(4)))
    assert [record.epoch for record in read_records(path)] == [2, 10]


def test_a_number_of_an_epoch_that_is_not_finite_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.csv"
    path.write_text("epoch,train_loss,val_loss,note\n2,0.5,0.4,nan\n3,0.4,nan,\n4,inf,0.4,\n")
    assert main(["diagnose", str(path)]) == 0
    told = capsys.readouterr().out
    assert "epoch 3: val_loss is not finite" in told
    assert "epoch 4: train_loss is not finite" in told
    assert told.count("is not finite") == 2


def test_the_rows_of_the_split_that_a_table_names_go_before_those_that_were_typed(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("epoch,val_loss,n_val\n0,0.5,900\n1,0.4,\n")
    assert [record.n_split for record in read_records(path, n_split=700)] == [900, 700]
