"""Convolutions over edge shapes, and running one of them through a column kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tvm_sparse.layout.geometry import Geometry
from tvm_sparse.layout.halo import Window
from tvm_sparse.layout.image_window import Strides
from tvm_sparse.plan.layer import Convolution, PackedLayer
from tvm_sparse.schedules.cpu.epilogue import Activation

from .compiled import call_layer, isa_of
from .reference import activate, assert_within, convolution_bound, convolve

# Subimages down and across that fill a vector, as a geometry for images is chosen.
GRIDS = {4: (2, 2), 8: (2, 4), 16: (4, 4)}
Pack = Callable[..., PackedLayer]
IDENTITY = Activation()


@dataclass(frozen=True)
class Case:
    """A convolution: ``image`` is ``(batch, channels, height, width)``; the rest as in Window."""

    image: tuple[int, int, int, int]
    outputs: int
    window: Window
    groups: int = 1


# Every one is run with a register tile of 2x2 vectors, so that one kernel serves them all.
CASES = {
    "3x3": Case((1, 5, 9, 14), 6, Window((3, 3), padding=(1, 1, 1, 1))),
    "one channel": Case((1, 1, 9, 10), 1, Window((3, 3), padding=(1, 1, 1, 1))),
    "prime sizes, asymmetric padding": Case((2, 7, 13, 11), 13, Window((3, 5), padding=(0, 2, 1, 3))),
    "image of one pixel": Case((3, 4, 1, 1), 5, Window((3, 3), padding=(1, 1, 1, 1))),
    "image of 2x2": Case((1, 4, 2, 2), 3, Window((3, 3), padding=(1, 1, 1, 1))),
    "image of 3x3 to one pixel": Case((2, 4, 3, 3), 3, Window((3, 3))),
    "one row": Case((1, 3, 1, 37), 4, Window((1, 5), padding=(0, 2, 0, 2))),
    "one column": Case((1, 3, 37, 1), 4, Window((5, 1), padding=(2, 0, 2, 0))),
    "stride 2": Case((1, 4, 12, 16), 7, Window((3, 3), (2, 2), padding=(1, 1, 1, 1))),
    "stride 2, odd, asymmetric": Case((1, 4, 15, 11), 7, Window((3, 3), (2, 2), padding=(0, 0, 1, 1))),
    "7x7, stride 2": Case((1, 3, 21, 18), 5, Window((7, 7), (2, 2), padding=(3, 3, 3, 3))),
    "stride larger than the kernel": Case((2, 3, 14, 17), 4, Window((1, 2), (3, 4))),
    "different strides": Case((1, 3, 14, 17), 4, Window((3, 3), (1, 3), padding=(1, 1, 1, 1))),
    "strided 1x1 with padding": Case((1, 3, 7, 8), 4, Window((1, 1), (2, 2), padding=(1, 0, 0, 1))),
    "padding larger than the kernel": Case((1, 3, 5, 6), 4, Window((2, 2), padding=(3, 4, 3, 5))),
    "padding larger than the image": Case((1, 2, 2, 3), 3, Window((3, 3), padding=(5, 5, 5, 5))),
    "dilation": Case((1, 3, 12, 15), 4, Window((3, 3), (1, 1), (2, 3), (2, 3, 2, 3))),
    "dilation and stride": Case((1, 3, 12, 15), 4, Window((3, 3), (2, 2), (3, 2), (3, 2, 3, 2))),
    "dilation beyond the image": Case((1, 3, 3, 4), 4, Window((3, 3), (1, 1), (4, 4), (4, 4, 4, 4))),
    "groups": Case((1, 6, 7, 9), 9, Window((3, 3), padding=(1, 1, 1, 1)), 3),
    "groups of many channels": Case((1, 140, 5, 5), 6, Window((3, 3), padding=(1, 1, 1, 1)), 2),
    "groups split into chunks": Case((1, 32, 4, 4), 32, Window((3, 3), padding=(1, 1, 1, 1)), 2),
    "depth-wise": Case((1, 19, 11, 10), 19, Window((3, 3), padding=(1, 1, 1, 1)), 19),
    "depth-wise, stride 2": Case((2, 19, 13, 12), 19, Window((5, 5), (2, 2), padding=(2, 2, 2, 2)), 19),
    "two outputs a channel": Case((1, 7, 9, 9), 14, Window((3, 3), padding=(1, 1, 1, 1)), 7),
    "several K-blocks": Case((1, 150, 5, 6), 11, Window((3, 3), padding=(1, 1, 1, 1))),
    "many outputs": Case((1, 9, 6, 6), 67, Window((3, 3), padding=(1, 1, 1, 1))),
    "batch": Case((7, 3, 6, 5), 4, Window((3, 3), padding=(1, 1, 1, 1))),
}  # fmt: skip

# Sizes that read single pixels in place: [batch, channels, height, width], outputs.
POINTWISE = {
    "1x1": Case((1, 5, 9, 14), 6, Window((1, 1))),
    "one channel": Case((1, 1, 3, 3), 1, Window((1, 1))),
    "one pixel": Case((1, 17, 1, 1), 3, Window((1, 1))),
    "prime sizes": Case((3, 13, 11, 7), 29, Window((1, 1))),
    "several K-blocks": Case((1, 461, 4, 4), 9, Window((1, 1))),
    "many outputs": Case((1, 8, 5, 5), 131, Window((1, 1))),
    "groups": Case((2, 12, 5, 3), 8, Window((1, 1)), 4),
    "batch": Case((11, 4, 2, 3), 5, Window((1, 1))),
}


def weights(case: Case, zeros: str, seed: int = 0) -> np.ndarray:
    """Random weights ``[M, C / groups, kh, kw]`` with a pattern of zeros."""
    rng = np.random.default_rng(seed)
    shape = (case.outputs, case.image[1] // case.groups, *case.window.kernel)
    # Away from zero, so that a nonzero that is lost shows.
    weight = (rng.choice([-1.0, 1.0], shape) * rng.uniform(0.2, 1.0, shape)).astype("float32")
    flat = weight.reshape(case.outputs, -1)
    if zeros == "80 %":
        flat[rng.random(flat.shape) < 0.8] = 0
    elif zeros == "all":
        flat[:] = 0
    elif zeros == "one full row":
        flat[np.arange(case.outputs) != case.outputs // 2] = 0
    elif zeros == "rows of blocks apart":  # rows that have their zeros in the same places are no neighbours
        kinds = -(-case.outputs // 4)
        flat *= (rng.random((kinds, flat.shape[1])) < 0.3)[np.arange(case.outputs) % kinds]
    elif zeros == "every count":  # rows of 0, 1, 2, ... nonzeros
        for row in range(case.outputs):
            flat[row, rng.permutation(flat.shape[1])[row % (flat.shape[1] + 1) :]] = 0
    else:
        assert zeros == "none"
    return weight


# Strides of plain images of some channels, height and width.
LAYOUTS = {
    "channels first": lambda channels, height, width: Strides(width, 1, height * width),
    "channels last": lambda channels, height, width: Strides(width * channels, channels, 1),
}

ZEROS = ("none", "80 %", "all", "one full row", "every count")


def fitting(grid: tuple[int, int], lanes: int) -> tuple[int, int]:
    """A grid, halved down where that is even, else across, until the lanes suffice: cases name those of 16 lanes."""
    down, across = grid
    while down * across > lanes:
        down, across = (down, across // 2) if down % 2 and across > 1 else (down // 2, across)
    return down, across


def check(
    pack: Pack,
    isa_name: str,
    case: Case,
    zeros: str = "80 %",
    tile: tuple[int, int] = (2, 2),
    grid: tuple[int, int] | None = None,
    source_tile: tuple[int, int] = (3, 1),
    source_grid: tuple[int, int] | None = None,
    activation: Activation = IDENTITY,
    residual: bool = False,
    inputs_of: Callable[[np.ndarray], np.ndarray] = np.asarray,
    slack: float = 1,
    image: Callable[..., Strides] | None = None,
    images: tuple[int, int] = (1, 1),
) -> PackedLayer:
    """Pack a layer, run it on random images and compare with the reference.

    Unused lanes of the inputs hold NaN and so does the output before: what leaks or is left out shows. `slack` widens
    the bound of rounding errors. Grids are made `fitting`. So many
    `images` share vectors of the input and of the output. With `image`, the kernel reads plain images of the strides
    that it gives for channels, height and width.
    """
    isa = isa_of(isa_name)
    rng = np.random.default_rng(1)
    x = inputs_of(rng.standard_normal(case.image).astype("float32"))
    weight, bias = weights(case, zeros), rng.standard_normal(case.outputs).astype("float32")
    height, width = case.window.output_size(*case.image[2:])
    grid = fitting(grid or GRIDS[isa.lanes], isa.lanes // max(images))
    target = Geometry(case.image[0], height, width, isa.lanes, grid, tile, images[1])
    if case.window == Window((1, 1)):
        source = target
    else:
        source_grid = fitting(source_grid or grid, isa.lanes // max(images))
        source = Geometry(case.image[0], *case.image[2:], isa.lanes, source_grid, source_tile, images[0])
    layer = Convolution(weight, bias, case.window, case.groups, activation, residual=residual)
    if image is None:
        packed = pack(layer, source, target, isa)
        inputs = [source.pack(x, fill=np.nan)]
    else:
        strides = image(*case.image[1:])
        packed = pack(layer, source, target, isa, image=strides)
        inputs = [x.transpose(0, 2, 3, 1) if strides.channel == 1 else x]
    want = convolve(x, weight, case.window, case.groups) + bias[:, None, None]
    bound = slack * convolution_bound(x, weight, case.window, case.groups)
    if residual:
        other = rng.standard_normal(want.shape).astype("float32")
        inputs.append(target.pack(other, fill=np.nan))
        want = want + other
    want = activate(activation.kind, want, activation.parameters)
    out = call_layer(packed, isa_name, inputs, target.shape(case.outputs))
    assert_within(target.unpack(out), want, bound)
    return packed


def with_image(case: Case, *image: int) -> Case:
    """The same layer on images of another size."""
    return replace(case, image=image)
