"""Kernels and schedules for CPUs."""
