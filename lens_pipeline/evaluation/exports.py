"""Tables of completeness for other people's programs: ECSV, FITS and an AASTeX deluxetable, with units, meanings and provenance.

Belongs here: formats. The numbers are those of the published parquet tables.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from astropy import units
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table

from lens_pipeline.contracts.completeness_tables import COMPLETENESS, COMPLETENESS_GRID
from lens_pipeline.contracts.tables import TableContract
from lens_pipeline.evaluation.axes import ALL, AXES
from lens_pipeline.evaluation.counting import UNDEFINED
from lens_pipeline.evaluation.wording import count, number

THRESHOLDS = "thresholds"

_TEX = str.maketrans(
    {character: rf"\{character}" for character in "_%&#${}"}
    | {"^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "\\": r"\textbackslash{}"}
)
_FILL = {pa.string(): "", pa.bool_(): -1, pa.int64(): -1, pa.float64(): np.nan}


def export_files(cells: pl.DataFrame, grids: pl.DataFrame, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """Write completeness in each format.

    Parameters
    ----------
    cells, grids : polars.DataFrame
        COMPLETENESS and COMPLETENESS_GRID.
    provenance : mapping
        What they are of; written into each file. `thresholds` says of each operating point what `at_thresholds` does.

    Returns
    -------
    dict
        File name to content: completeness.ecsv and grid.ecsv (whole tables, units of edges in columns), completeness.fits (an
        extension an axis and a grid, each column with its unit; text that isn't ASCII, which FITS can't hold, is escaped as
        Python's codec unicode_escape does), completeness.tex.
    """
    return {
        "completeness.ecsv": _ecsv(cells, COMPLETENESS, provenance),
        "grid.ecsv": _ecsv(grids, COMPLETENESS_GRID, provenance),
        "completeness.fits": _fits(cells, grids, provenance),
        "completeness.tex": deluxetable(cells, provenance).encode(),
    }


def astropy_table(rows: pl.DataFrame, contract: TableContract, unit_of: Mapping[str, str] | None = None) -> Table:
    """Return rows of a table as an astropy one: nulls masked, each column with its unit and meaning.

    Parameters
    ----------
    unit_of : mapping, optional
        Units of columns that the contract leaves open, such as edges.
    """
    table = Table()
    for name in rows.columns:
        declared = contract.column(name)
        unit = (unit_of or {}).get(name, declared.unit) or None
        values, null = rows[name], rows[name].is_null().to_numpy()
        filled = values.fill_null(_FILL[declared.dtype]) if null.any() and values.dtype != pl.Boolean else values
        if values.dtype == pl.Boolean:
            filled = values.cast(pl.Int16).fill_null(-1)
        plain = np.array(filled.to_list(), dtype=str) if declared.dtype == pa.string() else filled.to_numpy()
        description = declared.meaning + (" (1 yes, 0 no)" if values.dtype == pl.Boolean else "")
        unit = units.Unit(unit) if unit else None
        if null.any():
            column = MaskedColumn(plain, name=name, mask=null, unit=unit, description=description)
            if declared.dtype in (pa.int64(), pa.bool_()):
                column.fill_value = -1
        else:
            column = Column(plain, name=name, unit=unit, description=description)
        table.add_column(column)
    return table


def deluxetable(cells: pl.DataFrame, provenance: Mapping[str, Any]) -> str:
    r"""Write completeness along each axis as AASTeX ``deluxetable``s, one a threshold; cells without injections are left out.

    A cell with few effective injections is marked with an asterisk.
    """
    return "\n".join(_deluxetable(rows, provenance) for rows in cells.partition_by("operating_point"))


def _ecsv(rows: pl.DataFrame, contract: TableContract, provenance: Mapping[str, Any]) -> bytes:
    table = astropy_table(rows, contract)
    table.meta.update(table=contract.name, meaning=contract.meaning, **provenance)
    text = io.StringIO()
    table.write(text, format="ascii.ecsv")
    return text.getvalue().encode()


def _fits(cells: pl.DataFrame, grids: pl.DataFrame, provenance: Mapping[str, Any]) -> bytes:
    first = fits.PrimaryHDU()
    for line in _lines(provenance):
        first.header.add_history(_ascii(line))
    hdus = [first]
    parts = [(rows, "axis", COMPLETENESS) for rows in cells.partition_by("axis", maintain_order=True)]
    parts += [(rows, "grid", COMPLETENESS_GRID) for rows in grids.partition_by("grid", maintain_order=True)]
    for rows, kind, contract in parts:
        name = rows[kind][0]
        edges = [(column, f"unit{column.removeprefix('low').removeprefix('high')}") for column in rows.columns]
        unit_of = {
            column: rows[unit][0] or "" for column, unit in edges if column.startswith(("low", "high")) and rows.height
        }
        empty = [column for column in rows.columns if column.startswith(("axis_", "cell_", "low_", "high_"))]
        empty = [column for column in empty if rows[column].null_count() == rows.height and column[-1] > "2"]
        told = rows.drop([kind, *empty, *(column for column in rows.columns if column.startswith("unit"))])
        told = told.with_columns(pl.col(pl.String).map_elements(_ascii, return_dtype=pl.String))
        table = astropy_table(told, contract, unit_of)
        hdu = fits.table_to_hdu(table)
        for i, column in enumerate(table.columns.values(), start=1):
            hdu.header[f"TCOMM{i}"] = column.description
        hdu.header[kind.upper()] = name
        hdu.name = name.replace(" ", "")
        hdus.append(hdu)
    content = io.BytesIO()
    fits.HDUList(hdus).writeto(content)
    return content.getvalue()


def _deluxetable(rows: pl.DataFrame, provenance: Mapping[str, Any]) -> str:
    point = rows["operating_point"][0]
    lines = [
        r"\begin{deluxetable}{lrrrrcc}",
        rf"\tablecaption{{Completeness at the threshold {_tex(point)}\label{{tab:completeness_{point}}}}}",
        r"\tablehead{\colhead{Cell} & \colhead{$n$} & \colhead{Not stored} & \colhead{$n_\mathrm{eff}$} & \colhead{Galaxies} & "
        r"\colhead{Completeness} & \colhead{Of all lenses}}",
        r"\startdata",
    ]
    for axis_rows in rows.filter((pl.col("status") != UNDEFINED) & (pl.col("n") > 0)).partition_by("axis"):
        axis = axis_rows["axis"][0]
        lines.append(rf"\cutinhead{{{'All injections' if axis == ALL else _tex(AXES[axis].label)}}}")
        lines += list(_tex_rows(axis_rows))
    lines += [
        r"\enddata",
        rf"\tablecomments{{{_tex('; '.join(_lines(provenance, point)))}. Intervals are 95\%. An asterisk marks cells with few "
        r"effective injections.}",
        r"\end{deluxetable}",
        "",
    ]
    return "\n".join(lines)


def _tex_rows(rows: pl.DataFrame) -> Iterator[str]:
    for row in rows.iter_rows(named=True):
        mark = "" if row["status"] == "ok" else r"\tablenotemark{*}"
        n_eff = r"\nodata" if row["n_eff"] is None else f"{row['n_eff']:.0f}"
        found = _interval(row["completeness"], row["completeness_low"], row["completeness_high"])
        total = _interval(row["total"], row["total_low"], row["total_high"])
        n_lost = r"\nodata" if row["n_quarantined"] is None else f"{row['n_quarantined']}"
        yield rf"{_tex(row['cell'])}{mark} & {row['n']} & {n_lost} & {n_eff} & {row['n_galaxies']} & {found} & {total} \\"


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return r"\nodata"
    if low is None or high is None:
        return f"${value:.3f}$"
    return f"${value:.3f}_{{-{value - low:.3f}}}^{{+{high - value:.3f}}}$"


def _tex(text: str) -> str:
    return text.translate(_TEX)


def _ascii(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _lines(provenance: Mapping[str, Any], point: str | None = None) -> list[str]:
    """Say each thing in a line, of thresholds the one that is asked for, or all."""
    lines = [f"{name} {value}" for name, value in provenance.items() if isinstance(value, str | int | float)]
    thresholds = provenance.get(THRESHOLDS, {})
    return lines + [_threshold_line(name, told) for name, told in thresholds.items() if point in (None, name)]


def _threshold_line(name: str, told: Mapping[str, Any]) -> str:
    rate = told["fpr_reason"] if told["fpr"] is None else number(told["fpr"], told["fpr_low"], told["fpr_high"])
    of = f"{told['n_false_positives']:,} of {count(told['n_negatives'], 'control')}"
    return f"threshold {name}: logit above {told['logit']:.6g}, false-positive rate on test {rate}, {of}".replace(
        "−", "-"
    )
