"""The first kernel of a pretrained network, mapped to other bands and to a finer stem; and its grid of positions."""

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import adapt_input_conv

BANDS_FORMULA = "band b gets the kernel of input b mod {stock}, times {stock} / {bands} (timm's adapt_input_conv)"
ONE_BAND_FORMULA = "the one band gets the sum over the {stock} inputs (timm's adapt_input_conv)"
SIDE_FORMULA = (
    "{stock} to {side} pixels a side at stride {stock_stride} to {stride}: each weight is shared out by area over the pixels "
    "that it covers when the stamp is enlarged {stock_stride} / {stride} times about the kernel's centre; what would lie "
    "outside goes to the border, so that a flat sky gives the same response"
)


def map_first_kernel(
    weight_OIHW: torch.Tensor, *, bands: int, side: int, stride: int, stock_stride: int
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Map a pretrained first kernel to other bands, another side and another stride.

    A stem of stride s in place of S makes the network see the stamp as if it were enlarged S / s times. Enlarging by
    repeating pixels and then convolving with W is, transposed, convolving with W summed over the repeated pixels. So for
    one axis W' = A W, where A[u, v] is the share of weight v, S / s times narrower than a pixel, that lies in pixel u, both
    kernels about one centre. Patches that become smaller patches (4/4 to 4/2 with a border of 1, 16/16 to 8/8) give
    exactly what they gave on the enlarged stamp; 7/2 to 3/1 loses half a pixel at the border.

    Parameters
    ----------
    weight_OIHW : torch.Tensor
        (output, input band, y, x).

    Returns
    -------
    kernel, formulas : torch.Tensor, tuple of str
        The formulas that were used, in words; none where the kernel is unchanged.
    """
    formulas = []
    mapped, stock_bands, stock_side = weight_OIHW.float(), weight_OIHW.shape[1], weight_OIHW.shape[2]
    if bands != stock_bands:
        mapped = adapt_input_conv(bands, mapped, stock_bands)
        formula = ONE_BAND_FORMULA if bands == 1 else BANDS_FORMULA
        formulas.append(formula.format(stock=stock_bands, bands=bands))
    if (side, stride) != (stock_side, stock_stride):
        shares_uv = area_shares(stock_side, side, stride / stock_stride)
        mapped = torch.einsum("uy,vx,oiyx->oiuv", shares_uv, shares_uv, mapped.double()).float()
        formulas.append(SIDE_FORMULA.format(stock=stock_side, side=side, stock_stride=stock_stride, stride=stride))
    return mapped.contiguous(), tuple(formulas)


def area_shares(n_from: int, n_to: int, width: float) -> torch.Tensor:
    """Share of each of `n_from` weights of that width that lies in each of `n_to` pixels of width 1, float64 (to, from).

    Both rows are centred on 0; what lies outside belongs to the outermost pixel, so that columns sum to 1.
    """
    edges = (torch.arange(n_from + 1, dtype=torch.float64) - n_from / 2) * width
    borders = torch.arange(n_to + 1, dtype=torch.float64) - n_to / 2
    borders[0], borders[-1] = -torch.inf, torch.inf
    low = torch.maximum(edges[None, :-1], borders[:-1, None])
    high = torch.minimum(edges[None, 1:], borders[1:, None])
    return (high - low).clamp(min=0) / width


def map_positions(embedding_1NC: torch.Tensor, *, grid: int, n_prefix: int) -> torch.Tensor:
    """Resample a transformer's learned positions to another grid of tokens (bicubic, antialiased), without its class token.

    Parameters
    ----------
    grid : int
        Tokens on a side.
    n_prefix : int
        Tokens before the grid that belong to no place in the stamp.
    """
    places_1NC = embedding_1NC[:, n_prefix:].float()
    resampled: torch.Tensor = resample_abs_pos_embed(places_1NC, [grid, grid], num_prefix_tokens=0)
    return resampled
