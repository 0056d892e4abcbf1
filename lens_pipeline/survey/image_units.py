"""Units of an image that its header leaves out."""

from collections.abc import Mapping

from astropy.io import fits

from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB


def unit_assumed(what: str, headers: Mapping[str, fits.Header]) -> tuple[str, ...]:
    """Say in which bands images don't tell their unit; nothing where all do. Nanomaggy has one zero point: BUNIT says both.

    Parameters
    ----------
    what : str
        The images, as a sentence begins with them.
    headers : mapping
        By band.
    """
    lacking = [band for band, header in headers.items() if not str(header.get("BUNIT", "")).strip()]
    if not lacking:
        return ()
    also = " nor their zero point (MAGZERO)" if any("MAGZERO" not in headers[band] for band in lacking) else ""
    return (
        f"{what} in {', '.join(lacking)} don't say their unit (BUNIT){also}: nanomaggy, AB zero point "
        f"{NANOMAGGY_ZERO_POINT_AB:g}, is assumed.",
    )
