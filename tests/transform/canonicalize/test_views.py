import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_sparse.transform.canonicalize.views import View


@st.composite
def chains(draw):
    """A shape and a list of reshapes (shapes) and transposes (lists of axes) that apply in order."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    steps, current = [], shape
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            axes = draw(st.permutations(range(len(current))))
            steps.append(list(axes))
            current = tuple(current[axis] for axis in axes)
        else:
            rest, extents = math.prod(current), []
            while rest > 1 and len(extents) < 4:
                extents.append(draw(st.sampled_from([d for d in range(1, rest + 1) if rest % d == 0])))
                rest //= extents[-1]
            current = tuple([*extents, rest])
            steps.append(current)
    return shape, steps


@settings(max_examples=300, deadline=None)
@given(chains())
def test_view_is_what_numpy_does(chain):
    shape, steps = chain
    array = np.arange(math.prod(shape)).reshape(shape)
    view, wanted = View.identity(shape), array
    for step in steps:
        view = view.permute(step) if isinstance(step, list) else view.reshape(step)
        if view is None:  # mixes strides: no view of the source
            return
        wanted = wanted.transpose(step) if isinstance(step, list) else wanted.reshape(step)
    assert view.shape == wanted.shape
    split, axes, merged = view.steps()
    np.testing.assert_array_equal(array.reshape(split).transpose(axes).reshape(merged), wanted)


def test_heads_need_one_transpose():
    view = View.identity((1, 128, 12, 64)).permute([0, 2, 1, 3])
    assert view.steps() == ((1, 128, 12, 64), (0, 2, 1, 3), (1, 12, 128, 64))


def test_transpose_there_and_back_is_the_identity():
    view = View.identity((2, 6, 4)).permute([0, 2, 1]).permute([0, 2, 1])
    assert view.steps() == ((2, 6, 4), (0, 1, 2), (2, 6, 4))


def test_mixed_strides_are_no_view():
    assert View.identity((2, 3)).permute([1, 0]).reshape((2, 3)) is None
