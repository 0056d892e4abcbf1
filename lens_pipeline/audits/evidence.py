"""How much of the evidence lies in the arc's annulus, as rows of SHORTCUT_GATES and as a picture. Reported; no gate."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lens_pipeline.audits.counterfactuals import median_interval
from lens_pipeline.audits.gate import Gate, Kind, Status
from lens_pipeline.audits.occlusion import Annulus, Image, Stamp, share_inside
from lens_pipeline.evaluation.figures import DPI, figure_png
from lens_pipeline.evaluation.intervals import CONFIDENCE

_SHARES = {
    "evidence_in_annulus": "share of the positive evidence (occlusion by the control's pixels) in |r - theta_E| <= FWHM",
    "area_of_annulus": "share of the stamp's area in the same annuli: the evidence's share if it lay anywhere",
}


def share_gates(maps: Sequence[Image], annuli: Sequence[Annulus]) -> list[Gate]:
    """Report the median share of the positive evidence in the annulus, beside the annulus's share of the area."""
    shares = [share_inside(evidence, annulus) for evidence, annulus in zip(maps, annuli, strict=True)]
    areas = [float(annulus.mask(len(evidence)).mean()) for evidence, annulus in zip(maps, annuli, strict=True)]
    known = np.array([(share, area) for share, area in zip(shares, areas, strict=True) if share is not None])
    n = len(known)
    told: dict[str, Any] = {"kind": Kind.baseline, "unit": "fraction", "n_positives": n, "n_galaxies": n}
    if not n:
        why = "no injection's evidence was mapped"
        return [Gate(**told, name=name, of=of, status=Status.not_measured, reason=why) for name, of in _SHARES.items()]
    found = []
    for (name, of), values in zip(_SHARES.items(), known.T, strict=True):
        low, high = median_interval(values) or (None, None)
        level = None if low is None else CONFIDENCE
        found.append(
            Gate(
                **told,
                name=name,
                of=of,
                status=Status.ok,
                value=float(np.median(values)),
                low=low,
                high=high,
                level=level,
            )
        )
    return found


def evidence_png(
    stamps: Sequence[Stamp], maps: Sequence[Image], annuli: Sequence[Annulus], words: Sequence[str]
) -> bytes:
    """Draw each stamp's middle band and, beneath it, its evidence, both with the annulus."""
    figure = Figure(figsize=(1.4 * len(stamps), 3.0), dpi=2 * DPI, layout="constrained")
    panels = figure.subplots(2, len(stamps), squeeze=False)
    for place, (stamp, evidence, annulus, said) in enumerate(zip(stamps, maps, annuli, words, strict=True)):
        plane = stamp[len(stamp) // 2]
        low, high = np.quantile(plane, [0.05, 0.995])
        most = max(float(np.abs(evidence).max()), np.finfo(float).tiny)
        half = (len(plane) - 1) / 2
        edges = (-half - 0.5, half + 0.5, -half - 0.5, half + 0.5)
        panels[0][place].imshow(plane, vmin=low, vmax=high, cmap="gray", origin="lower", extent=edges)
        panels[1][place].imshow(evidence, vmin=-most, vmax=most, cmap="RdBu_r", origin="lower", extent=edges)
        angle = np.linspace(0, 2 * np.pi, 100)
        for panel in panels[:, place]:
            panel.set_axis_off()
            for radius in (annulus.radius - annulus.half_width, annulus.radius + annulus.half_width):
                r = max(radius, 0.0)
                panel.plot(annulus.x + r * np.cos(angle), annulus.y + r * np.sin(angle), color="tab:green", lw=0.7)
        panels[0][place].set_title(said, fontsize=6)
    return figure_png(figure)
