"""Kernels as TensorIR, installed as ``tvm_sparse.schedules``."""
