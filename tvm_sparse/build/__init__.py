"""Compiling kernels once, caching them on disk, and linking packages."""
