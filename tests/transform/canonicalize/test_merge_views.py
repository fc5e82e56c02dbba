from tvm import relax

from tvm_sparse.transform.canonicalize.merge_views import MergeViews

from .helpers import assert_rewrites, assert_same_results, assert_unchanged, calls, module, rewritten

OP = relax.op


def test_reshapes_merge():
    before = module([(2, 3, 4)], lambda x: OP.negative(OP.reshape(OP.reshape(x, (6, 4)), (2, 12))))
    assert_rewrites(before, module([(2, 3, 4)], lambda x: OP.negative(OP.reshape(x, (2, 12)))), MergeViews())


def test_transposes_cancel():
    before = module(
        [(2, 3, 4)], lambda x: OP.negative(OP.permute_dims(OP.permute_dims(x, [0, 2, 1]), [0, 2, 1]))
    )
    assert_rewrites(before, module([(2, 3, 4)], OP.negative), MergeViews())


def test_transpose_of_unit_axis_is_a_reshape():
    before = module([(1, 3, 4)], lambda x: OP.permute_dims(x, [1, 0, 2]))
    assert_rewrites(before, module([(1, 3, 4)], lambda x: OP.reshape(x, (3, 1, 4))), MergeViews())


def test_fused_query_key_value_is_sliced_first():
    def body(x):  # [B, T, 3 * H * D] -> the keys, [B, H, D, T]
        heads = OP.permute_dims(OP.reshape(x, (2, 5, 3, 4, 8)), [2, 0, 3, 1, 4])
        keys = OP.reshape(OP.strided_slice(heads, [0], [1], [2]), (2, 4, 5, 8))
        return OP.permute_dims(keys, [0, 1, 3, 2])

    def expected(x):
        keys = OP.reshape(OP.strided_slice(x, [2], [32], [64]), (2, 5, 4, 8))
        return OP.permute_dims(keys, [0, 2, 3, 1])

    before = module([(2, 5, 96)], body)
    after = assert_rewrites(before, module([(2, 5, 96)], expected), MergeViews())
    assert_same_results(before, after)


def test_intermediate_that_others_read_stays():
    def body(x):
        transposed = OP.permute_dims(x, [1, 0, 2])
        return OP.negative(transposed), OP.reshape(transposed, (3, 8))

    before = module([(2, 3, 4)], body)
    after = rewritten(before, MergeViews())
    assert calls(after).count("permute_dims") == 1
    assert_same_results(before, after)


def test_single_views_stay():
    assert_unchanged(
        module([(2, 3, 4)], lambda x: (OP.permute_dims(x, [1, 0, 2]), OP.reshape(x, (6, 4)))), MergeViews()
    )


def test_strided_slice_of_a_transpose_stays():
    body = lambda x: OP.strided_slice(OP.permute_dims(x, [1, 0]), [0], [0], [4], [2])  # noqa: E731
    assert_unchanged(module([(3, 4)], body), MergeViews())
