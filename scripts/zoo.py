"""Benchmark zoo: writes pruned networks as ONNX files. Their speed is of interest, their accuracy is not.

    python -m scripts.zoo OUT_DIR NAME...      # write NAME.onnx for each name
    python -m scripts.zoo --list               # print the names that `scripts/benchmark` knows

A name is ``NETWORK[_rHxW][_sPERCENT][_bBATCH]``: ``resnet50``, ``unet_r225x161_s85``, ``mlp_s90_b64``.
Weights are random; `s` prunes every convolution and linear layer by magnitude, each to that share of zeros,
except depth-wise ones, the first layer on an image, and the classifier (as is usual). Batch norms take the
statistics of random inputs, so that activations keep a healthy scale through the deepest network.
Needs torch and onnx.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = re.compile(r"(?P<net>[a-z]\w*?)(?:_r(?P<h>\d+)x(?P<w>\d+))?(?:_s(?P<s>\d+))?(?:_b(?P<b>\d+))?")

DENSE = ("resnet50", "mobilenet", "bert", "mlp", "detector", "unet", "vit", "efficientnet", "mobilenet_v3",
         "convnext", "resnext50", "deeplab", "speech")  # fmt: skip
SPARSE = ("resnet50_s90", "mobilenet_s90", "bert_s90", "mlp_s90_b64", "detector_s85", "unet_s85", "vit_s85",
          "efficientnet_s85", "mobilenet_v3_s85", "convnext_s85", "resnext50_s85", "deeplab_s85",
          "speech_s85", "resnet50_r225x161_s85", "mobilenet_r97x161_s85_b3",
          "resnet50_s90_b8", "bert_s80")  # fmt: skip


@dataclass(frozen=True)
class Spec:
    """What a zoo name asks for.

    Parameters
    ----------
    net : str
        Key of :func:`networks`.
    size : tuple of int, or None
        Image height and width; None keeps the network's own.
    sparsity : float
        Share of zeros in each pruned weight, from 0 to below 1.
    batch : int
        Batch size.
    """

    net: str
    size: tuple[int, int] | None
    sparsity: float
    batch: int


def parse_name(name: str) -> Spec:
    """Read a zoo name such as ``unet_r225x161_s85_b2``.

    Raises
    ------
    ValueError
        If the name does not follow the pattern, or asks for 100 % zeros or an empty batch.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"'{name}' is no zoo name: NETWORK[_rHxW][_sPERCENT][_bBATCH] is expected")
    percent, batch = int(match["s"] or 0), int(match["b"] or 1)
    if percent > 99 or batch < 1:
        raise ValueError(f"'{name}' asks for {percent} % zeros and batch {batch}: at most 99 %, at least 1")
    size = (int(match["h"]), int(match["w"])) if match["h"] else None
    return Spec(match["net"], size, percent / 100, batch)


@dataclass(frozen=True)
class Network:
    """How to build a network and its input.

    Parameters
    ----------
    build : callable
        Returns the module.
    shape : tuple of int
        Shape of one input without the batch.
    keep_dense : tuple of str
        Names of layers (or prefixes of them) that pruning leaves alone: stem and classifier.
    opset : int
        ONNX operator set of the exported file.
    integers : int
        Inputs are token ids below this number; 0 for float32 inputs.
    """

    build: Callable[[], Any]
    shape: tuple[int, ...]
    keep_dense: tuple[str, ...] = ()
    opset: int = 13
    integers: int = 0


def networks() -> dict[str, Network]:
    """The zoo's networks by name (imports torch)."""
    from scripts.zoo_networks import classifiers, dense_prediction, sequences

    image = (3, 224, 224)
    return {
        "resnet50": Network(classifiers.resnet50, image, ("0.0.", "2")),
        "mobilenet": Network(classifiers.mobilenet, image, ("0.0.", "2")),
        "mobilenet_v3": Network(classifiers.mobilenet_v3, image, ("0.0.", "2"), 17),
        "efficientnet": Network(classifiers.efficientnet, image, ("0.0.", "2")),
        "resnext50": Network(classifiers.resnext50, image, ("0.0.", "2")),
        "convnext": Network(classifiers.convnext, image, ("0.0", "3"), 17),
        "detector": Network(dense_prediction.Detector, (3, 320, 320), ("stem.0.", "heads")),
        "unet": Network(dense_prediction.UNet, (3, 192, 192), ("first.0.", "head")),
        "deeplab": Network(dense_prediction.DeepLab, image, ("trunk.0.", "head")),
        "vit": Network(sequences.VisionTransformer, image, ("patches", "head"), 17),
        "bert": Network(sequences.Bert, (128,), ("classifier",), 13, 30000),
        "mlp": Network(sequences.mlp, (1024,)),
        "speech": Network(sequences.speech, (64, 400), ("0", "11")),
    }


def prune_(module: Any, sparsity: float, keep_dense: tuple[str, ...]) -> None:
    """Zero the smallest weights of every convolution and linear layer, in place.

    Parameters
    ----------
    module : torch.nn.Module
        Network.
    sparsity : float
        Share of each weight's elements that becomes zero (rounded down to whole elements).
    keep_dense : tuple of str
        Layers whose name is one of these, or starts with one that ends in a dot, stay as they are.
    """
    import torch
    from torch import nn

    for name, layer in module.named_modules():
        if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)) or _kept(name, keep_dense):
            continue
        if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.in_channels > 1:
            continue
        weight = layer.weight.data.view(-1)
        smallest = torch.topk(weight.abs(), int(weight.numel() * sparsity), largest=False).indices
        weight[smallest] = 0


def _kept(name: str, keep_dense: tuple[str, ...]) -> bool:
    return any(name == kept or name.startswith(kept.rstrip(".") + ".") for kept in keep_dense)


def random_input(network: Network, spec: Spec) -> Any:
    """A random input tensor of the network, ``[batch, ...]``, float32 or int64."""
    import torch

    shape = network.shape
    if spec.size is not None:
        if len(shape) != 3:
            raise ValueError(f"'{spec.net}' takes no images, so that _rHxW means nothing")
        shape = (shape[0], *spec.size)
    if network.integers:
        return torch.randint(0, network.integers, (spec.batch, *shape))
    return torch.randn(spec.batch, *shape)


def make(name: str, folder: Path) -> Path:
    """Write one model.

    Parameters
    ----------
    name : str
        Zoo name.
    folder : Path
        Existing folder; the file is ``folder / (name + ".onnx")``.

    Returns
    -------
    Path
        The file written.
    """
    import torch
    from torch import nn

    spec = parse_name(name)
    known = networks()
    if spec.net not in known:
        raise ValueError(f"'{spec.net}' is no network of the zoo; there are {', '.join(sorted(known))}")
    network = known[spec.net]
    torch.manual_seed(0)
    module = network.build()
    if spec.sparsity:
        prune_(module, spec.sparsity, network.keep_dense)
    example = random_input(network, spec)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0  # the statistics of the one pass below
        nn.init.uniform_(norm.weight, 0.8, 1.2)
        nn.init.normal_(norm.bias, 0, 0.1)
    if norms:
        with torch.no_grad():
            # At least two samples: a batch norm after global pooling has nothing to measure in one.
            module.train()(example if spec.batch > 1 else torch.cat([example, torch.randn_like(example)]))
    path, part = folder / f"{name}.onnx", folder / f"{name}.onnx.part"
    torch.onnx.export(
        module.eval(), (example,), str(part), input_names=["x"], output_names=["y"],
        opset_version=network.opset, dynamo=False,
    )  # fmt: skip
    part.replace(path)
    return path


def main() -> None:
    """Entry point of ``python -m scripts.zoo``."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--list", action="store_true", help="print the names of the benchmark and stop")
    parser.add_argument("folder", nargs="?", type=Path, help="where the files go")
    parser.add_argument("names", nargs="*", help="zoo names")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(DENSE + SPARSE))
        return
    if arguments.folder is None or not arguments.names:
        parser.error("a folder and at least one name are needed (or --list)")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        print(make(name, arguments.folder), flush=True)


if __name__ == "__main__":
    main()
