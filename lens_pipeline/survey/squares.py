"""Light on a grid of cells by adaptive quadrature: the sky is cut into squares, and squares into four, until each is smooth.

Belongs here: how a surface brightness is integrated over cells. What the brightness is stands in `light.py`, where light
comes from in `lensing.py`.

A square is known by its 3x3 Gauss-Legendre points: exact to degree 5 along each axis for its mean, and the parabola through
them gives the mean over each cell of a larger square. So faint and smooth tails cost nine points for 64 cells, and cusps and
arcs that cross a caustic are cut as finely as they need.
"""

import math
from typing import NamedTuple

import numpy as np

from lens_pipeline.stamps.kernels import compiled
from lens_pipeline.survey.lensing import Lens, trace
from lens_pipeline.survey.optics import Image

# Most cells across the squares that are begun with.
BLOCK = 8
_POINT = math.sqrt(0.6)
_WEIGHT = (5 / 18, 8 / 18, 5 / 18)
_SMALLEST = 2.0**-14
# Light that may hide in a square is only bounded, not estimated: less of it is let pass.
_HIDDEN = 0.1
_STACK = 64


class Shape(NamedTuple):
    """A surface brightness, as numbers that compiled code takes.

    Attributes
    ----------
    x, y : float
        Its centre in the source plane, arcsec.
    xx, xy, yx, yy : float
        From arcsec along x and y to its own lengths along its own axes.
    peak : float
        Largest brightness, nanomaggy per arcsec^2.
    b, power : float
        Brightness is peak exp(-b r^(2 power)), r in its own lengths; used where `samples` is empty.
    core : float
        Own length within which too little shines for a cusp there to matter.
    extent : float
        Own length within which it may be rough.
    samples : (m, m) array
        Coefficients of a cubic spline, own length one sample; empty for a Sersic profile.
    """

    x: float
    y: float
    xx: float
    xy: float
    yx: float
    yy: float
    peak: float
    b: float
    power: float
    core: float
    extent: float
    samples: Image


def _cell_weights() -> Image:
    """Weights of the three points in the mean over each of 1, 2, 4, 8 equal parts; (level, part, point)."""
    weights = np.zeros((4, BLOCK, 3))
    nodes = np.array([-_POINT, 0, _POINT])
    for level in range(4):
        edges = np.linspace(-1, 1, 2**level + 1)
        for k in range(3):
            others = np.delete(nodes, k)
            whole = np.poly1d(others, r=True).integ()
            parts = np.diff(whole(edges)) / np.diff(edges)
            weights[level, : 2**level, k] = parts / np.prod(nodes[k] - others)
    return weights


CELL_WEIGHTS = _cell_weights()


@compiled
def _spline(samples: Image, p: float, s: float) -> float:
    """Value of a cubic B-spline at a place counted from the middle of the samples; 0 outside."""
    height, width = samples.shape
    column, row = p + (width - 1) / 2, s + (height - 1) / 2
    if not (1 <= column < width - 2 and 1 <= row < height - 2):
        return 0.0
    i, j = int(row), int(column)
    v, u = row - i, column - j
    weight_u = ((1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, 1 + 3 * u + 3 * u**2 - 3 * u**3, u**3)
    weight_v = ((1 - v) ** 3, 3 * v**3 - 6 * v**2 + 4, 1 + 3 * v + 3 * v**2 - 3 * v**3, v**3)
    total = 0.0
    for k in range(4):
        for m in range(4):
            total += weight_v[k] * weight_u[m] * samples[i + k - 1, j + m - 1]
    return total / 36


@compiled
def brightness_at(shape: Shape, p: float, s: float) -> float:
    """Surface brightness at a place in own lengths, nanomaggy per arcsec^2."""
    if shape.samples.shape[0] > 0:
        return _spline(shape.samples, p, s)
    r2 = p * p + s * s
    if shape.power == 0.5:
        r = math.sqrt(r2)
    elif shape.power == 0.125:
        r = math.sqrt(math.sqrt(math.sqrt(r2)))
    else:
        r = math.exp(shape.power * math.log(r2 + 1e-300))
    return shape.peak * math.exp(-shape.b * r)


@compiled
def _is_rough(f: Image, area: float, n: int, allowed: float) -> bool:
    """Whether second differences along rows, columns or diagonals put more light in doubt than is allowed.

    Their square goes with the fourth power of the side, as what the parabola leaves out does.
    """
    most = curvature = 0.0
    for i in range(3):
        for j in range(3):
            most = max(most, abs(f[i, j]))
        curvature = max(curvature, abs(f[i, 0] - 2 * f[i, 1] + f[i, 2]), abs(f[0, i] - 2 * f[1, i] + f[2, i]))
    curvature = max(curvature, abs(f[0, 0] - 2 * f[1, 1] + f[2, 2]), abs(f[0, 2] - 2 * f[1, 1] + f[2, 0]))
    return bool(area * curvature * curvature * max(n, 1) > allowed * most)


@compiled
def _may_overlook(p: Image, s: Image, x: float, y: float, side: float, lens: Lens, shape: Shape) -> bool:
    """Whether a cusp, or the faint image next to the lens's centre, may stand between a square's points."""
    # Around the lens's centre rays go everywhere, and how far the points are spread in the source plane says nothing.
    if lens.theta_e > 0 and max(abs(x), abs(y)) < side:
        return True
    nearest, spread = np.inf, 0.0
    for i in range(3):
        for j in range(3):
            nearest = min(nearest, p[i, j] ** 2 + s[i, j] ** 2)
            spread = max(spread, (p[i, j] - p[1, 1]) ** 2 + (s[i, j] - s[1, 1]) ** 2)
    reach = math.sqrt(spread) / _POINT
    return reach > shape.core and math.sqrt(nearest) < reach + shape.extent


@compiled
def _spread_over_cells(f: Image, cells: Image, row: int, column: int, n: int, cell_weights: Image) -> None:
    """Add to n x n cells the mean over each of the parabola through nine points."""
    level = 1 if n == 2 else (2 if n == 4 else 3)
    for k in range(n):
        w = cell_weights[level, k]
        left = w[0] * f[0, 0] + w[1] * f[1, 0] + w[2] * f[2, 0]
        middle = w[0] * f[0, 1] + w[1] * f[1, 1] + w[2] * f[2, 1]
        right = w[0] * f[0, 2] + w[1] * f[1, 2] + w[2] * f[2, 2]
        for m in range(n):
            w = cell_weights[level, m]
            cells[row + k, column + m] += w[0] * left + w[1] * middle + w[2] * right


@compiled
def integrate(
    squares: Image,
    across: int,
    step: float,
    lens: Lens,
    shape: Shape,
    allowed: float,
    cells: Image,
    cell_weights: Image,
) -> float:
    """Add the mean brightness over cells, nanomaggy per arcsec^2, and return the light of all squares, nanomaggy.

    Parameters
    ----------
    squares : (m, 5) array
        Centre x and y from the lens, side, arcsec, and first row and column in `cells`.
    across : int
        Cells across each square; 0 where only the sum is asked for.
    step : float
        Side of a cell, arcsec.
    allowed : float
        Light that a square may be in doubt of, nanomaggy.
    cells : (rows, columns) array
        Added to.
    cell_weights : (4, 8, 3) array
        `CELL_WEIGHTS`.
    """
    stack = np.empty((_STACK, 6))
    f, p, s = np.empty((3, 3)), np.empty((3, 3)), np.empty((3, 3))
    total = 0.0
    for number in range(squares.shape[0]):
        stack[0, :5], stack[0, 5] = squares[number], across
        smallest = squares[number, 2] * _SMALLEST
        height = 1
        while height > 0:
            height -= 1
            x, y, side = stack[height, 0], stack[height, 1], stack[height, 2]
            row, column, n = int(stack[height, 3]), int(stack[height, 4]), int(stack[height, 5])
            half, area = side / 2, side * side
            for i in range(3):
                for j in range(3):
                    bx, by = trace(x + (j - 1) * _POINT * half, y + (i - 1) * _POINT * half, lens)
                    dx, dy = bx - shape.x, by - shape.y
                    p[i, j], s[i, j] = shape.xx * dx + shape.xy * dy, shape.yx * dx + shape.yy * dy
                    f[i, j] = brightness_at(shape, p[i, j], s[i, j])
            hidden = area * shape.peak > _HIDDEN * allowed and _may_overlook(p, s, x, y, side, lens, shape)
            if side > smallest and (hidden or _is_rough(f, area, n, allowed)):
                for i in range(2):
                    for j in range(2):
                        part = stack[height]
                        part[0], part[1], part[2] = x + (j - 0.5) * half, y + (i - 0.5) * half, half
                        part[3], part[4], part[5] = row + i * (n // 2), column + j * (n // 2), n // 2
                        height += 1
                continue
            mean = 0.0
            for i in range(3):
                mean += _WEIGHT[i] * (_WEIGHT[0] * f[i, 0] + _WEIGHT[1] * f[i, 1] + _WEIGHT[2] * f[i, 2])
            total += mean * area
            if n > 1:
                _spread_over_cells(f, cells, row, column, n, cell_weights)
            elif across > 0:
                cells[row, column] += mean * area / (step * step)
    return total
