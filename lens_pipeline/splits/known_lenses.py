"""Known lenses and candidates, so that none of them is taken for a control or for a host of injections.

Belongs here: reading the lenscat table (github.com/lenscat/lenscat), which of its references are about galaxy-scale lenses,
how each found its lenses, and matching by position. lenscat calls 31,755 of its rows galaxies, but more than 13,000 of these
stand in cluster catalogues only: a row counts by its references. How a lens was found is kept because a network that finds
again what networks found proves little.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few, no_file

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

_HEADER = ["name", "RA [deg]", "DEC [deg]", "zlens", "type", "grading", "ref"]
# Entries of one system in several lists differ by less than this.
_SAME_SYSTEM_ARCSEC = 2.0
_CONFIDENT = "confident"
_REFERENCES_TOLD = 20

NETWORK, SPECTROSCOPY, ARC_FINDER, VISUAL, SUBMILLIMETRE = (
    "network",
    "spectroscopy",
    "arc_finder",
    "visual",
    "submillimetre",
)
COMPILATION = "compilation"
# A lens that one of these methods found would be known without any network.
_WITHOUT_NETWORK = frozenset({SPECTROSCOPY, ARC_FINDER, VISUAL, SUBMILLIMETRE})

# Galaxy-scale searches among lenscat's references, by what their reference contains. A reference that isn't here, as those of
# cluster catalogues and of the list of lensed quasars, makes no row a galaxy-scale lens.
_METHOD_OF_REFERENCE = {
    "1906.00970": NETWORK,  # Huang et al. 2020, Legacy Surveys
    "2005.04730": NETWORK,  # Huang et al. 2021, Legacy Surveys
    "2206.02764": NETWORK,  # Storfer et al. 2022, Legacy Surveys
    "2110.00023": NETWORK,  # Stein et al. 2021, Legacy Surveys
    "2210.10802": NETWORK,  # Zaborowski et al. 2022, DELVE
    "2004.13048": NETWORK,  # Canameras et al. 2020, Pan-STARRS
    "2107.07829": NETWORK,  # Canameras et al. 2021, HSC
    "2201.11135": NETWORK,  # Shu et al. 2022, HSC
    "2109.00014": NETWORK,  # Rojas et al. 2021, DES
    "2110.11972": NETWORK,  # Savary et al. 2021, CFIS
    "1811.03786": NETWORK,  # Jacobs et al. 2018, DES
    "1905.10522": NETWORK,  # Jacobs et al. 2019, DES
    "4365/ab26b6": NETWORK,  # the same, by its journal
    "1812.03168": NETWORK,  # Petrillo et al. 2018, KiDS
    "2110.01905": NETWORK,  # Li et al. 2021, KiDS
    "2312.07333": NETWORK,  # Jaelani et al. 2023, HSC (SuGOHI X)
    "2205.05307": NETWORK,  # Tran et al. 2022, AGEL: spectra of candidates that networks found
    "2205/2205.05307": NETWORK,
    "0805.1931": SPECTROSCOPY,  # Bolton et al. 2008, SLACS
    "0911.2471": SPECTROSCOPY,  # Auger et al. 2009, SLACS
    "1112.3683": SPECTROSCOPY,  # Brownstein et al. 2011, BELLS
    "1104.5663": SPECTROSCOPY,  # Treu et al. 2011, SWELLS
    "1503.04813": SPECTROSCOPY,  # Holwerda et al. 2015, GAMA
    "1604.01842": SPECTROSCOPY,  # Shu et al. 2016, BELLS GALLERY
    "2019yCat..18510048S": SPECTROSCOPY,  # Shu et al. 2017, SLACS
    "1803.03604": SPECTROSCOPY,  # Talbot et al. 2018, MaNGA
    "2007.09006": SPECTROSCOPY,  # Talbot et al. 2020, eBOSS
    "2206.09902": SPECTROSCOPY,  # Talbot et al. 2022, MaNGA
    "785/2/144": ARC_FINDER,  # Gavazzi et al. 2014, RingFinder, CFHTLS
    "1109.1821": ARC_FINDER,  # More et al. 2011, CFHTLS
    "1307.4764": ARC_FINDER,  # Sonnenfeld et al. 2013, SL2S
    "1307.4759": ARC_FINDER,  # Sonnenfeld et al. 2013, SL2S
    "astro-ph/0610362": ARC_FINDER,  # Cabanac et al. 2006, SL2S
    "arXiv:0610362": ARC_FINDER,  # the same
    "1704.01585": ARC_FINDER,  # Sonnenfeld et al. 2018, HSC (SuGOHI I)
    "1809.07341": ARC_FINDER,  # Wong et al. 2018, HSC (SuGOHI II)
    "1911.02587": ARC_FINDER,  # Chan et al. 2020, HSC (SuGOHI IV)
    "2203.12805": ARC_FINDER,  # Wong et al. 2022, HSC (SuGOHI VIII)
    "1302.2663": ARC_FINDER,  # Stark et al. 2013, CASSOWARY
    "0812.3934": ARC_FINDER,  # Kubo et al. 2008
    "2004.00634": VISUAL,  # Sonnenfeld et al. 2020, HSC (SuGOHI VI), citizens
    "1504.05587": VISUAL,  # More et al. 2016, CFHTLS, citizens
    "4365/aa8667": VISUAL,  # Diehl et al. 2017, DES
    "2110.02418": VISUAL,  # O'Donnell et al. 2021, DES
    "1911.02162": VISUAL,  # Nord et al. 2019, DES
    "1206.3412": VISUAL,  # Pawase et al. 2014, HST
    "0802.2174": VISUAL,  # Faure et al. 2008, COSMOS
    "1210.4136": VISUAL,  # Furlanetto et al. 2012, SOAR
    "1611.03922": SUBMILLIMETRE,  # Negrello et al. 2016, Herschel
    "1801.07282": SUBMILLIMETRE,  # Amvrosiadis et al. 2018, ALMA
    "2012hst..prop12833M": COMPILATION,  # Moustakas et al. 2012, the Master Lens Database
    "1509.07649": COMPILATION,  # Cao et al. 2015
    "1805.08640": COMPILATION,  # Leaf et al. 2018
}


@dataclass(frozen=True)
class KnownLenses:
    """Galaxy-scale lenses and candidates, each system once.

    Attributes
    ----------
    rows : list of dict
        ``lens_name``, ``lens_ra``, ``lens_dec`` (ICRS, degrees), ``grade`` (confident or probable), ``methods`` (how it was
        found, joined by a comma), ``independent_of_networks`` (null where no list says how) and ``references``.
    report : dict
        Where they are from and how many rows were left out for which reason.
    """

    rows: list[dict[str, Any]]
    report: dict[str, Any]

    def match(
        self, ra: ArrayLike, dec: ArrayLike, radius_arcsec: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Find the nearest lens of each position.

        Returns
        -------
        place : (n,) array
            In `rows`; -1 where none is as near as the radius.
        distance : (n,) array
            arcsec; infinite where none is.
        """
        if not self.rows:
            return np.full(np.shape(ra), -1), np.full(np.shape(ra), np.inf)
        chord, place = self._tree.query(on_sphere(np.atleast_1d(ra), np.atleast_1d(dec)))
        distance = np.degrees(2 * np.arcsin(np.minimum(chord, 2) / 2)) * 3600
        found = distance <= radius_arcsec
        return np.where(found, place, -1), np.where(found, distance, np.inf)

    @cached_property
    def _tree(self) -> "cKDTree":
        # Here and not at the top: few datasets name known lenses.
        from scipy.spatial import cKDTree

        return cKDTree(on_sphere([row["lens_ra"] for row in self.rows], [row["lens_dec"] for row in self.rows]))


def read_known_lenses(path: str, *, setting: str = "parent_sample.known_lenses") -> KnownLenses:
    """Read a table in lenscat's layout and keep its galaxy-scale lenses.

    Parameters
    ----------
    setting : str
        What names the file, for an error.

    Raises
    ------
    ConfigError
        If there is no such file.
    ContractError
        If its columns are others, or a position is no position.
    """
    place = Path(path).expanduser().absolute()
    if not place.is_file():
        raise ConfigError(f"{setting}: {no_file(place)}. Set it to lenscat's CSV, or leave it out.")
    content = place.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ContractError(f"{place} isn't text in UTF-8: {error}. Fetch it again.") from error
    # Names and references hold lone quotation marks.
    lines = csv.reader(io.StringIO(text, newline=""), quoting=csv.QUOTE_NONE)
    header = next(lines, [])
    if header != _HEADER:
        raise ContractError(f"{place} has the columns {first_few(header)}, wanted lenscat's: {', '.join(_HEADER)}.")
    entries = [dict(zip(_HEADER, line, strict=True)) for line in _whole(lines, place)]
    galaxies = [entry for entry in entries if entry["type"] == "galaxy"]
    lenses = [_lens(entry) for entry in galaxies]
    kept = [lens for lens in lenses if lens["methods"]]
    _refuse_bad_positions(kept, place)
    systems = _merged(kept)
    report = {
        "file": str(place), "sha256": hashlib.sha256(content).hexdigest(), "rows": len(entries),
        "not_of_type_galaxy": len(entries) - len(galaxies),
        "galaxy_without_a_galaxy_scale_reference": len(galaxies) - len(kept),
        "repeated": len(kept) - len(systems), "lenses": len(systems),
        "confident": sum(lens["grade"] == _CONFIDENT for lens in systems),
        "independent_of_networks": sum(bool(lens["independent_of_networks"]) for lens in systems),
        "references_that_do_not_count": dict(
            Counter(lens["references"] for lens in lenses if not lens["methods"]).most_common(_REFERENCES_TOLD)
        ),
    }  # fmt: skip
    return KnownLenses(systems, report)


def _whole(lines: Iterable[list[str]], path: Path) -> Iterable[list[str]]:
    for number, line in enumerate(lines, start=2):
        if len(line) != len(_HEADER):
            raise ContractError(f"{path}, line {number} has {len(line)} fields, wanted {len(_HEADER)}.")
        yield line


def _lens(entry: dict[str, str]) -> dict[str, Any]:
    methods = {method for key, method in _METHOD_OF_REFERENCE.items() if key in entry["ref"]}
    return {
        "lens_name": entry["name"],
        "lens_ra": _number(entry["RA [deg]"]),
        "lens_dec": _number(entry["DEC [deg]"]),
        "grade": entry["grading"],
        "methods": methods,
        "references": entry["ref"],
    }


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _refuse_bad_positions(lenses: list[dict[str, Any]], path: Path) -> None:
    bad = [lens["lens_name"] for lens in lenses if not (0 <= lens["lens_ra"] <= 360 and -90 <= lens["lens_dec"] <= 90)]
    if bad:
        raise ContractError(
            f"{path}: {len(bad)} lenses have no position in degrees (ICRS); first: {first_few(bad)}. Such a lens would be "
            f"matched to nothing and stay among the controls; mend or remove these rows."
        )


def _merged(lenses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a system: entries nearer than the matching length are one, with all their methods and the better grade."""
    from scipy.spatial import cKDTree

    if not lenses:
        return []
    points = on_sphere([lens["lens_ra"] for lens in lenses], [lens["lens_dec"] for lens in lenses])
    first = list(range(len(lenses)))

    def system_of(place: int) -> int:
        while first[place] != place:
            first[place] = first[first[place]]
            place = first[place]
        return place

    for a, b in sorted(cKDTree(points).query_pairs(_chord(_SAME_SYSTEM_ARCSEC))):
        low, high = sorted((system_of(a), system_of(b)))
        first[high] = low
    systems: dict[int, list[dict[str, Any]]] = {}
    for place, lens in enumerate(lenses):
        systems.setdefault(system_of(place), []).append(lens)
    return [_one(entries) for entries in systems.values()]


def _one(entries: list[dict[str, Any]]) -> dict[str, Any]:
    methods = set().union(*(entry["methods"] for entry in entries))
    confident = any(entry["grade"] == _CONFIDENT for entry in entries)
    return {
        "lens_name": entries[0]["lens_name"],
        "lens_ra": entries[0]["lens_ra"],
        "lens_dec": entries[0]["lens_dec"],
        "grade": _CONFIDENT if confident else entries[0]["grade"],
        "methods": ", ".join(sorted(methods)),
        "independent_of_networks": None if methods == {COMPILATION} else bool(methods & _WITHOUT_NETWORK),
        "references": " | ".join(dict.fromkeys(entry["references"] for entry in entries)),
    }


def on_sphere(ra: ArrayLike, dec: ArrayLike) -> NDArray[np.float64]:
    """Points on the unit sphere, (n, 3), of places in degrees."""
    east, north = np.radians(np.asarray(ra, dtype=float)), np.radians(np.asarray(dec, dtype=float))
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=-1)


def _chord(arcsec: float) -> float:
    return float(2 * np.sin(np.radians(arcsec / 3600) / 2))
