import pytest
import torch
from torch.nn.functional import conv2d

from lens_pipeline.training.kernels import area_shares, map_first_kernel, map_positions

KERNEL = torch.randn(4, 3, 7, 7, generator=torch.Generator().manual_seed(1))


def _enlarged(stamp: torch.Tensor, times: int) -> torch.Tensor:
    return stamp.repeat_interleave(times, 2).repeat_interleave(times, 3)


@pytest.mark.parametrize(
    ("stock", "stride", "side", "border"),
    [((4, 4), 2, 4, 1), ((16, 16), 8, 8, 0), ((16, 16), 4, 4, 0)],
    ids=["convnext", "vit 8", "vit 4"],
)
def test_smaller_patches_give_exactly_what_the_pretrained_ones_gave_on_the_enlarged_stamp(
    stock: tuple[int, int], stride: int, side: int, border: int
) -> None:
    weight, stamp = torch.randn(5, 3, stock[0], stock[0]), torch.randn(2, 3, 32, 32)
    mapped, _ = map_first_kernel(weight, bands=3, side=side, stride=stride, stock_stride=stock[1])
    pretrained = conv2d(_enlarged(stamp, stock[1] // stride), weight, stride=stock[1])
    assert torch.allclose(conv2d(stamp, mapped, stride=stride, padding=border), pretrained, atol=1e-4)


def test_3x3_of_stride_1_gives_nearly_what_7x7_of_stride_2_gave_on_the_enlarged_smooth_stamp() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    stamp = torch.exp(-((y - 15) ** 2 + (x - 17) ** 2) / 60).expand(1, 3, 32, 32)
    mapped = map_first_kernel(KERNEL, bands=3, side=3, stride=1, stock_stride=2)[0]
    pretrained = conv2d(_enlarged(stamp, 2), KERNEL, stride=2, padding=3)[:, :, 2:-2, 2:-2]
    # The two grids lie a quarter of a pixel apart, and the border of half a pixel is folded in.
    apart = (conv2d(stamp, mapped, padding=1)[:, :, 2:-2, 2:-2] - pretrained).abs().max()
    assert apart < 0.15 * pretrained.abs().max()


@pytest.mark.parametrize(("side", "stride", "stock_stride"), [(3, 1, 2), (7, 1, 2), (4, 2, 4), (9, 2, 2)])
def test_a_flat_sky_gives_the_same_response(side: int, stride: int, stock_stride: int) -> None:
    mapped = map_first_kernel(KERNEL, bands=3, side=side, stride=stride, stock_stride=stock_stride)[0]
    assert torch.allclose(mapped.sum((2, 3)), KERNEL.sum((2, 3)), atol=1e-5)


def test_a_kernel_that_fits_is_unchanged_bit_for_bit_and_needs_no_formula() -> None:
    mapped, formulas = map_first_kernel(KERNEL, bands=3, side=7, stride=2, stock_stride=2)
    assert torch.equal(mapped, KERNEL)
    assert formulas == ()


def test_five_bands_repeat_the_inputs_and_keep_the_response_to_a_grey_sky() -> None:
    mapped, formulas = map_first_kernel(KERNEL[:, :, :3, :3], bands=5, side=3, stride=2, stock_stride=2)
    for band in range(5):
        assert torch.allclose(mapped[:, band], KERNEL[:, band % 3, :3, :3] * 3 / 5)
    # Of 5 bands two inputs come twice: grey is kept on average only, exactly so where the bands are a multiple of 3.
    six = map_first_kernel(KERNEL, bands=6, side=7, stride=2, stock_stride=2)[0]
    assert torch.allclose(six.sum(1), KERNEL.sum(1), atol=1e-5)
    assert "b mod 3, times 3 / 5" in formulas[0]


def test_one_band_gets_the_sum_over_the_inputs() -> None:
    mapped, _ = map_first_kernel(KERNEL, bands=1, side=7, stride=2, stock_stride=2)
    assert torch.allclose(mapped[:, 0], KERNEL.sum(1))


def test_shares_are_areas() -> None:
    # Seven weights half a pixel wide over three pixels: 3.5 pixels, a quarter beyond either border.
    shares = area_shares(7, 3, 0.5)
    assert shares.sum(0).tolist() == [1.0] * 7
    assert shares[1].tolist() == [0, 0, 0.5, 1, 0.5, 0, 0]
    assert torch.equal(shares, shares.flip(0).flip(1))


def test_positions_are_resampled_without_the_class_token_and_stand_where_they_stood() -> None:
    ramp = torch.arange(14.0).repeat(14, 1).reshape(1, 196, 1)
    stock = torch.cat([torch.full((1, 1, 1), 1e9), ramp], dim=1)
    mapped = map_positions(stock, grid=8, n_prefix=1).reshape(8, 8)
    assert torch.allclose(mapped[3], mapped[5])
    # Centres of 8 pixels over 14: 0.375, 2.125, ...
    assert torch.allclose(mapped[0, 2:6], (torch.arange(2, 6) + 0.5) * 14 / 8 - 0.5, atol=0.05)
