"""Relax passes from an imported module to scheduled loops and kernels."""

import tvm_ffi

from tvm_sparse.errors import TvmSparseError

# Passes are called through TVM, which hands on an error as RuntimeError unless it knows the type.
tvm_ffi.register_error(TvmSparseError)
