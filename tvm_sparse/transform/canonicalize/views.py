"""Chains of reshapes and transposes as one object: which element of the source each position holds."""

from __future__ import annotations

from dataclasses import dataclass

Atom = tuple[int, int]
"""Extent and stride, in elements of the source in row-major order."""


@dataclass(frozen=True)
class View:
    """A reordering of a dense tensor's elements.

    Parameters
    ----------
    source : tuple of int
        Shape of the source.
    dims : tuple of tuple of Atom
        For each axis of the view its atoms, outermost first; extents of one are left out.
    """

    source: tuple[int, ...]
    dims: tuple[tuple[Atom, ...], ...]

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> View:
        """The view that is its source."""
        dims, stride = [], 1
        for extent in reversed(shape):
            dims.append(((extent, stride),) if extent > 1 else ())
            stride *= extent
        return cls(shape, tuple(reversed(dims)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the view."""
        return tuple(_product(extent for extent, _ in atoms) for atoms in self.dims)

    def permute(self, axes: list[int]) -> View:
        """The view with its axes reordered."""
        return View(self.source, tuple(self.dims[axis] for axis in axes))

    def reshape(self, shape: tuple[int, ...]) -> View | None:
        """The view's elements in row-major order in another shape; None where an axis would mix strides."""
        atoms = _coalesce([atom for dim in self.dims for atom in dim])
        dims: list[tuple[Atom, ...]] = []
        for extent in shape:
            taken: list[Atom] = []
            while extent > 1:
                if not atoms:
                    return None
                size, stride = atoms.pop(0)
                if extent % size == 0:
                    taken.append((size, stride))
                    extent //= size
                elif size % extent == 0:
                    inner = size // extent
                    taken.append((extent, stride * inner))
                    atoms.insert(0, (inner, stride))
                    extent = 1
                else:
                    return None
            dims.append(tuple(taken))
        return None if atoms else View(self.source, tuple(dims))

    def steps(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The view as reshape, transpose, reshape.

        Returns
        -------
        (split, axes, merged) : tuple of tuple of int
            Reshape the source to ``split``, transpose by ``axes``, reshape to ``merged``. Where one transpose
            of the source is enough, ``split`` is the source's shape; where none is needed, ``axes`` is the
            identity.
        """
        dims = [_coalesce(list(dim)) for dim in self.dims]
        atoms = _coalesce([atom for dim in dims for atom in dim])
        if atoms == sorted(atoms, key=lambda atom: -atom[1]):
            return self.shape, tuple(range(len(self.shape))), self.shape
        if all(
            len(dim) <= 1 for dim in dims
        ):  # the transpose gives the view's shape, axes of extent one included
            items = [dim[0] if dim else (1, 0) for dim in dims]
            split, axes = _transpose(items, self.source)
            return split, axes, self.shape
        items = [atom for dim in dims for atom in dim]
        padded = [(1, 0)] * sum(extent == 1 for extent in self.source) + items
        split, axes = _transpose(padded, self.source)
        if split != self.source:
            split, axes = _transpose(items, self.source)
        return split, axes, self.shape


def _transpose(items: list[Atom], source: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape to transpose from, and axes, that give ``items``; like the source's shape where possible."""
    atoms = sorted((i for i, (extent, _) in enumerate(items) if extent > 1), key=lambda i: -items[i][1])
    units = [i for i, (extent, _) in enumerate(items) if extent == 1]
    order = []
    for extent in source:
        queue = units if extent == 1 else atoms
        if queue:
            order.append(queue.pop(0))
    order += atoms + units
    position = {item: place for place, item in enumerate(order)}
    return tuple(items[i][0] for i in order), tuple(position[i] for i in range(len(items)))


def _coalesce(atoms: list[Atom]) -> list[Atom]:
    """Neighbouring atoms that are neighbours in the source too become one."""
    merged: list[Atom] = []
    for extent, stride in atoms:
        if merged and merged[-1][1] == extent * stride:
            merged[-1] = (merged[-1][0] * extent, stride)
        else:
            merged.append((extent, stride))
    return merged


def _product(extents: object) -> int:
    result = 1
    for extent in extents:  # type: ignore[attr-defined]
        result *= extent
    return result
