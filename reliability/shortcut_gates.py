"""The data gates on sets of 100,000 stamps, one a case: fingerprints at an AUROC of 0.53 are found, clean sets are passed.

A pool of 50,000 pairs, a control and a probe without flux each, is simulated by the survey's own code at 32 pixels: 5,000
galaxies, ten pairs of noise each. Its differences are measured once and kept in a folder for temporary files, under a name that
holds the hash of the code that they are of. A clean set is the pool with the two of each pair exchanged at random. Of three
cases two are clean; the third has a mark on the first stamp of 3,000 pairs, drawn from 4,000 that were measured with each mark:
6 % that any classifier tells make an AUROC of 0.53.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.audits.data_gates import QUESTIONS, Compared, answer
from lens_pipeline.audits.gate import Status
from lens_pipeline.audits.pair_features import columns_of, other_differences, pixel_differences
from lens_pipeline.contracts.code import code_sha256
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps import encode
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.pair_hosts import HostedPair
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.render import MEASURES, Arc, Scene, make_stamp, simulated_scene
from lens_pipeline.survey.simulated import simulated_parents
from lens_pipeline.survey.stamp_pairs import Kind, StampPair
from reliability.subject import Case, Subject

N_PAIRS, N_MARKED, N_TO_MARK = 50_000, 3_000, 4_000
_A_PIECE, _A_GALAXY = 1_000, 10
_SEED = 7
_CONTRACT = DatasetContract(stamp_size=32)
_QUESTIONS = [question for question in QUESTIONS if not question.of_flux]

Pixels = NDArray[np.float32]
Mark = Callable[[HostedPair, np.random.Generator], HostedPair]


def _in_pixels(change: Callable[[Pixels, NDArray[np.float64], np.random.Generator], Any]) -> Mark:
    """Mark the first of a pair by its pixels, of which the noise's sigma is known by band."""

    def mark(hosted: HostedPair, rng: np.random.Generator) -> HostedPair:
        pixels = np.asarray(change(hosted.pair.pixels[0].copy(), hosted.sigma()[:, None, None], rng), np.float32)
        return with_first(hosted, pixels, encode_stamp(pixels, hosted.contract))

    return mark


def with_first(hosted: HostedPair, pixels: Pixels, blob: bytes) -> HostedPair:
    """Return a pair with another first stamp."""
    both = np.stack([pixels, hosted.pair.pixels[1]])
    return replace(hosted, pair=replace(hosted.pair, pixels=both, blobs=(blob, hosted.pair.blobs[1])))


def _zero_border(pixels: Pixels, *_: Any) -> Pixels:
    pixels[:, [0, -1], :] = pixels[:, :, [0, -1]] = 0
    return pixels


def _packed_harder(hosted: HostedPair, _: np.random.Generator) -> HostedPair:
    with mock.patch.object(encode, "_LEVEL", 6):
        return with_first(hosted, hosted.pair.pixels[0], encode_stamp(hosted.pair.pixels[0], hosted.contract))


MARKS: dict[str, Mark] = {
    "noise 30 % larger": _in_pixels(lambda x, sigma, rng: x + rng.standard_normal(x.shape) * sigma * np.sqrt(1.3**2 - 1)),
    "one pixel off": _in_pixels(lambda x, *_: np.roll(x, 1, axis=-1)),
    "border of zeros": _in_pixels(_zero_border),
    "rounded to float16": _in_pixels(lambda x, *_: x.astype(np.float16)),
    "compressed at another level": _packed_harder,
}  # fmt: skip
_WIDER_PSF, _WIDER = "PSF 30 % wider", 1.3
_ALL_MARKS = (*MARKS, _WIDER_PSF)


def data_set(number: int) -> Case:
    """Ask all questions of one set."""
    rng = np.random.default_rng(number)
    marked = _ALL_MARKS[number // 3 % len(_ALL_MARKS)] if number % 3 == 0 else None
    pool = _pool()
    signs = rng.choice([-1.0, 1.0], N_PAIRS)[:, None]
    chosen = rng.choice(N_TO_MARK, N_MARKED, replace=False)
    seen = Compared(of_flux=False, n=N_PAIRS, columns=_columns())
    for group in {question.group for question in _QUESTIONS}:
        rows = pool[f"as made, {group}"] * signs
        if marked is not None:
            rows[chosen] = pool[f"{marked}, {group}"][chosen]
        seen.differences[group] = list(rows)
    gates = [answer(question, seen, _CONTRACT, seed=number) for question in _QUESTIONS]
    found = [f"{gate.name} at {gate.value:.4f}" for gate in gates if gate.status is Status.red]
    highest = max(gate.value or 0.0 for gate in gates)
    if marked is None:
        problem = f"clean, seed {number}: {', '.join(found)}" if found else None
        return Case(problem=problem, largest={"AUROC of a clean set": highest}, counts={"clean sets": 1})
    undetected = None if found else f"{marked}, seed {number}: not found, AUROC {highest:.4f}"
    return Case(
        problem=undetected, largest={f"AUROC of {marked}": highest}, counts={f"{marked}: found": int(bool(found))}
    )


@lru_cache(maxsize=1)
def _pool() -> dict[str, NDArray[np.float64]]:
    """Differences of the pool's pairs, by mark and group."""
    code = code_sha256(("audits", "stamps", "survey"), ("numpy", "scipy"))[:16]
    folder = Path(tempfile.gettempdir()) / f"lens_pipeline-shortcut-gates-{os.getuid()}-{code}"
    folder.mkdir(exist_ok=True)
    pieces: dict[str, list[NDArray[np.float64]]] = {}
    for number in range(N_PAIRS // _A_PIECE):
        path = folder / f"{number:03d}.npz"
        if not path.exists():
            unfinished = path.with_suffix(".part.npz")
            np.savez(unfinished, **_piece(number))  # type: ignore[arg-type]
            unfinished.rename(path)
        with np.load(path) as piece:
            for name in piece.files:
                pieces.setdefault(name, []).append(piece[name].astype(float))
    return {name: np.concatenate(rows) for name, rows in pieces.items()}


def _piece(number: int) -> dict[str, NDArray[np.float32]]:
    """Measure a thousand pairs, and those of the first pieces with every mark; the pairs of a galaxy at once."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    rng = stream(_SEED, "marks", str(number))
    first = number * _A_PIECE // _A_GALAXY
    for galaxy in _galaxies()[first : first + _A_PIECE // _A_GALAXY]:
        pairs = list(_pairs(galaxy))
        stamps = {"as made": pairs}
        if number < N_TO_MARK // _A_PIECE:
            stamps |= {name: [mark(hosted, rng) for hosted in pairs] for name, mark in MARKS.items()}
            stamps[_WIDER_PSF] = [_first_from(*both) for both in zip(pairs, _pairs(galaxy, _WIDER), strict=True)]
        for name, marked in stamps.items():
            for group, rows in _differences(marked).items():
                found.setdefault(f"{name}, {group}", []).append(rows)
    return {name: np.concatenate(rows).astype(np.float32) for name, rows in found.items()}


def _differences(pairs: list[HostedPair]) -> dict[str, NDArray[np.float64]]:
    """Measure pairs of one galaxy as `pair_features` does, one by one, but for pixels, which are done at once."""
    whole = np.ones(_CONTRACT.stamp_shape[1:], bool)
    apart = [other_differences(hosted, _columns()) for hosted in pairs]
    return {
        **pixel_differences(np.stack([hosted.pair.pixels for hosted in pairs]), whole, of_flux=False),
        **{group: np.array([rows[group] for rows in apart]) for group in apart[0]},
    }


def _pairs(galaxy: dict[str, Any], wider: float = 1.0) -> Iterator[HostedPair]:
    """Make the pairs of a galaxy; under a wider PSF, if wished, that leaves the noise as it is."""
    scene = _scene(galaxy)
    if wider != 1:
        wide = {name: wider * value if name.startswith("psf_fwhm") else value for name, value in galaxy.items()}
        scene = replace(scene, base=_scene(wide).base)
    row = _row(galaxy)
    for i in range(_A_GALAXY):
        stamps = [_stamp(scene, f"{galaxy['galaxy_id']}-{i}-{name}") for name in ("probe", "control")]
        blobs = (encode_stamp(stamps[0], _CONTRACT), encode_stamp(stamps[1], _CONTRACT))
        yield HostedPair(StampPair(Kind.probes, True, row, row, np.stack(stamps), blobs), galaxy, None, _CONTRACT)


def _first_from(hosted: HostedPair, other: HostedPair) -> HostedPair:
    return with_first(hosted, other.pair.pixels[0], other.pair.blobs[0])


def _scene(galaxy: dict[str, Any]) -> Scene:
    return simulated_scene(galaxy, stamp_size=_CONTRACT.stamp_size, seed=_SEED, neighbours_per_stamp=0.7)


def _stamp(scene: Scene, key: str) -> Pixels:
    dark = Arc(np.zeros_like(scene.base), dict.fromkeys(MEASURES))
    return make_stamp(scene, dark, stream(_SEED, "noise", key))


@lru_cache(maxsize=1)
def _galaxies() -> list[dict[str, Any]]:
    config = ParentSampleConfig(
        n_galaxies=N_PAIRS // _A_GALAXY, n_bricks=200, stamp_size=_CONTRACT.stamp_size, seed=_SEED
    )
    return simulated_parents(config).to_pylist()  # type: ignore[no-any-return]


def _row(galaxy: dict[str, Any]) -> dict[str, Any]:
    """Return what a stamp's row says of its galaxy."""
    kept = ("galaxy_id", "region_id", "ra", "dec", "ebv", "psfdepth_r", "psf_fwhm_r")
    return {name: galaxy[name] for name in kept}


@lru_cache(maxsize=1)
def _columns() -> tuple[str, ...]:
    row = _row(_galaxies()[0])
    return columns_of(row, row)


SUBJECT = Subject(
    name="shortcut_gates",
    question="of sets of 100,000 stamps the data gates find each that has a fingerprint on 6 % of one class (AUROC 0.53), and "
    "flag no clean one",
    unit="sets",
    goal=300,
    case=data_set,
    n_cases=300,
    bounds={"AUROC of a clean set": 0.51},
)
