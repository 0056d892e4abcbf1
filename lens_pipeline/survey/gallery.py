"""Pictures of the survey for people: a map of its regions and stamps in colour."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.fragments import BLOB, Fragments
from lens_pipeline.storage.publication import Publication

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 8
_CANDIDATE_ROWS = 1024
# Weight of the red, green and blue band, so that a red galaxy is yellow and a blue arc blue (as in the Legacy viewer).
_WEIGHTS = (0.55, 1.0, 2.0)
_STRETCH, _SOFTENING, _BLACK = 0.06, 8.0, -0.004
PANEL, GAP = 96, 3
_DPI, _LEFT, _TOP = 100, 16, 16
# Colours are kept to 5 bits: the rest is noise that the eye doesn't see and a PNG can't compress.
_COLOUR_STEP = 8


def colour(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Lupton et al. (2004) colours of a stamp: its last band red, the middle one green, the first blue.

    Parameters
    ----------
    pixels : (band, y, x) array
        nanomaggy.

    Returns
    -------
    (y, x, 3) array
        With y upwards in the first row, as the array stands.
    """
    from astropy.visualization import make_lupton_rgb

    chosen = (pixels[-1], pixels[len(pixels) // 2], pixels[0])
    red, green, blue = (
        weight * (band.astype(float) - np.median(band)) for weight, band in zip(_WEIGHTS, chosen, strict=True)
    )
    seen = np.asarray(make_lupton_rgb(red, green, blue, minimum=_BLACK, stretch=_STRETCH, Q=_SOFTENING))
    return np.asarray(seen // _COLOUR_STEP * _COLOUR_STEP)


def stamps_png(stamps: Publication) -> bytes:
    """Draw injections over their controls and what was injected, each with its Einstein radius and arc S/N.

    They are chosen from the first fragment, by Einstein radius. The last line is injection minus control.
    """
    from matplotlib.figure import Figure

    pairs = _pairs(stamps)
    columns = max(1, len(pairs))
    shown = shown_of(DatasetContract.model_validate(stamps.attributes["dataset_contract"]).stamp_size)
    # Each pixel of a stamp is drawn as a whole number of the picture's: that keeps the file small and the picture sharp.
    side = shown * max(1, PANEL // shown)
    width, height = _LEFT + columns * (side + GAP), _TOP + 3 * (side + GAP)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    for column, (injection, control) in enumerate(pairs):
        panels = [None if row is None else row.get("pixels") for row in (injection, control)]
        paired = injection is not None and control is not None and injection.get("pair_id") == control["task_id"]
        above, below = panels
        panels.append(above - below if paired and above is not None and below is not None else None)
        for line, pixels in enumerate(panels):
            left, bottom = _LEFT + column * (side + GAP), (2 - line) * (side + GAP) + GAP
            axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
            axes.set_xticks([])
            axes.set_yticks([])
            if pixels is not None:
                axes.imshow(colour(middle(pixels, shown)), origin="lower", interpolation="nearest")
            if line == 0 and injection is not None:
                axes.set_title(_caption(injection), fontsize=6.5, pad=2)
            if column == 0:
                axes.set_ylabel(("injection", "control", "difference")[line], fontsize=7, labelpad=1)
    return figure_png(figure)


def shown_of(stamp_size: int) -> int:
    """Return the pixels across of the part that is shown: the middle three quarters, where arcs are."""
    return 3 * stamp_size // 4


def middle(pixels: NDArray[Any], shown: int) -> NDArray[Any]:
    """Cut out the middle of a stamp, so many pixels across."""
    start = (pixels.shape[-1] - shown) // 2
    return pixels[..., start : start + shown, start : start + shown]


def _caption(row: dict[str, Any]) -> str:
    theta_e, snr = row.get("theta_e_arcsec"), row.get("arc_snr_matched")
    radius = "" if theta_e is None else f"$\\theta_E$ {theta_e:.2f}''"
    return radius if snr is None else f"{radius}  S/N {snr:.3g}"


def _pairs(stamps: Publication) -> list[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Choose injections of different galaxies by Einstein radius, each with its control where that is near in the file."""
    contract = DatasetContract.model_validate(stamps.attributes["dataset_contract"])
    fragment = Fragments.open(stamps).fragments[0]
    names = ("task_id", "pair_id", "galaxy_id", "lens_model", "theta_e_arcsec", "arc_snr_matched", "cutout_ok")
    rows: list[dict[str, Any]] = []
    for batch in fragment.batches(names, rows=_CANDIDATE_ROWS):
        rows = batch.to_pylist()
        break
    usable = [row | {"place": i} for i, row in enumerate(rows) if row["cutout_ok"] == 1]
    controls = [row for row in usable if contract.label_of.get(row["lens_model"]) == 0]
    lenses = [row for row in usable if (contract.label_of.get(row["lens_model"]) or 0) > 0]
    # One injection a galaxy, another one of its list each time: all radii come up even where each galaxy has many.
    by_galaxy: dict[Any, list[dict[str, Any]]] = {}
    for row in lenses:
        by_galaxy.setdefault(row.get("galaxy_id") or row["task_id"], []).append(row)
    single = [found[number % len(found)] for number, found in enumerate(by_galaxy.values())]
    single.sort(key=lambda row: row["theta_e_arcsec"] or 0.0)
    chosen = [single[i] for i in np.unique(np.linspace(0, len(single) - 1, min(_COLUMNS, len(single))).astype(int))]
    mates = {row["task_id"]: row for row in controls}
    unpaired = iter(controls)
    pairs = []
    for injection in chosen:
        named = injection.get("pair_id")
        pairs.append((injection, mates.get(named) if named is not None else next(unpaired, None)))
    if not pairs:
        pairs = [(None, control) for control in controls[:_COLUMNS]]
    _add_pixels(fragment, contract, [row for pair in pairs for row in pair if row is not None])
    return pairs


def _add_pixels(fragment: Any, contract: DatasetContract, rows: list[dict[str, Any]]) -> None:
    from lens_pipeline.stamps.decode import Stamp, decode_blob

    wanted = {row["place"] for row in rows}
    blobs: dict[int, bytes] = {}
    start = 0
    for batch in fragment.batches((BLOB,), rows=128):
        places = [place for place in wanted if start <= place < start + batch.num_rows]
        blobs |= {place: batch[BLOB][place - start].as_py() for place in places}
        start += batch.num_rows
        if len(blobs) == len(wanted):
            break
    for row in rows:
        stamp = decode_blob(blobs[row["place"]], contract)
        if isinstance(stamp, Stamp):
            row["pixels"] = stamp.pixels


def sky_map_png(parent: Publication) -> bytes:
    """Draw the regions on the sky, coloured by r seeing where it is known."""
    from matplotlib.figure import Figure

    table = parent.read_table(columns=["region_id", "ra", "dec", "psf_fwhm_r"])
    figure = Figure(figsize=(6.4, 2.9), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    regions = table.group_by("region_id").aggregate(
        [("ra", "mean"), ("dec", "mean"), ("psf_fwhm_r", "mean"), ("ra", "count")]
    )
    placed = regions.filter(pc.is_valid(regions["ra_mean"]))
    if not placed.num_rows:
        axes.set_axis_off()
        said = f"{table.num_rows:,} galaxies in {regions.num_rows:,} regions,\nwithout positions on the sky"
        axes.text(0.5, 0.5, said, ha="center", va="center", fontsize=11)
        return figure_png(figure)
    ra, dec = placed["ra_mean"].to_numpy(), placed["dec_mean"].to_numpy()
    known = placed["psf_fwhm_r_mean"].null_count < placed.num_rows
    if not known:
        axes.scatter(ra, dec, color="tab:blue", s=14, linewidths=0)
    else:
        dots = axes.scatter(ra, dec, c=placed["psf_fwhm_r_mean"].to_numpy(), s=14, cmap="viridis", linewidths=0)
        figure.colorbar(dots, ax=axes, label="seeing FWHM in r [arcsec]", pad=0.01)
    axes.set(xlabel="RA [deg]", ylabel="Dec [deg]", title=f"{table.num_rows:,} galaxies in {placed.num_rows:,} regions")
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    return figure_png(figure)


def figure_png(figure: "Figure") -> bytes:
    """Write a figure as a PNG."""
    out = io.BytesIO()
    figure.savefig(out, format="png", pil_kwargs={"optimize": True})
    return out.getvalue()
