"""The same function with evener weights, for a training that starts from somebody's network.

Where batch normalisation was folded into the convolutions, as in MoveNet's files, the size of
weights says little: the pyramid's are 0.001 here and 1.6 there. Adam moves all of them by the
rate, and a rate that is right for the one ruins the other.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn

from humanpose.nets.lite import Lite
from humanpose.nets.mobilenet import Block, SameConv, Separable

M = TypeVar("M", bound=nn.Module)

_SWEEPS = 30


def even_out(net: Lite) -> None:
    """Scale the layers of `net` against each other; what it computes stays, up to rounding.

    Between a layer without ReLU6 and the next a positive factor may move freely. It goes where the
    root mean squares of both, times the root of their inputs, are as near to 1 as they can be.
    """
    streams = _streams(net)
    with torch.no_grad():
        for _ in range(_SWEEPS):
            for producers, consumers in streams:
                ahead = sum(map(_size, consumers)) / len(consumers)
                factor = math.exp((ahead - sum(map(_size, producers)) / len(producers)) / 2)
                for conv in producers:
                    conv.weight *= factor
                    assert conv.bias is not None
                    conv.bias *= factor
                for conv in consumers:
                    conv.weight /= factor


def _streams(net: Lite) -> list[tuple[list[nn.Conv2d], list[nn.Conv2d]]]:
    """(convolutions whose results are added up, convolutions that take the sum) of all `net`."""
    backbone = net.backbone
    laterals = _all(SameConv, net.pyramid.laterals)
    tapped = dict(zip(reversed(backbone.taps), laterals, strict=True))
    found: list[tuple[list[nn.Conv2d], list[nn.Conv2d]]] = []
    blocks = _all(Block, backbone.blocks)
    for i, block in enumerate(blocks):
        if not block.residual:  # a new sum begins
            found.append(([], []))
        elif block.expand is not None:
            found[-1][1].append(block.expand.conv)
        found[-1][0].append(block.project.conv)
        after = blocks[i + 1] if i + 1 < len(blocks) else None
        if after is not None and not after.residual and after.expand is not None:
            found[-1][1].append(after.expand.conv)
        if i in tapped:
            found[-1][1].append(tapped[i].conv)
    assert backbone.head is not None
    found[-1][1].append(backbone.head.conv)
    smooths = _all(Separable, net.pyramid.smooths)
    found.append(([net.pyramid.top.conv, laterals[0].conv], [smooths[0].depthwise.conv]))
    for (smooth, after_it), lateral in zip(pairwise(smooths), laterals[1:], strict=True):
        found.append(([smooth.pointwise.conv, lateral.conv], [after_it.depthwise.conv]))
    last = net.maps.separable
    found.append(([smooths[-1].pointwise.conv], [last.depthwise.conv]))
    found += [([each.depthwise.conv], [each.pointwise.conv]) for each in (*smooths, last)]
    found.append(([last.pointwise.conv], [net.maps.out.conv]))
    return found


def _all(kind: type[M], modules: nn.ModuleList) -> list[M]:
    return [module for module in modules if isinstance(module, kind)]


def _size(conv: nn.Conv2d) -> float:
    """Logarithm of the root mean square of the weights times the root of their inputs' number."""
    weight = conv.weight
    return 0.5 * math.log(weight.detach().square().mean().item() * weight[0].numel())
