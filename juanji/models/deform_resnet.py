"""Residual networks whose last stage has deformable convolutions (002 §4.6).

Source: Dai, Qi, Xiong, Li, Zhang, Hu, Wei, "Deformable convolutional networks", ICCV 2017, §2.1 and §3.
"""

from __future__ import annotations

from typing import Any

from juanji.models.resnet import BasicBlock, ResNet
from juanji.nn import Conv2d, DeformConv2d, init
from juanji.tensor import Tensor


class OffsetConv2d(DeformConv2d):
    """A 3×3 deformable convolution with a 3×3 convolution `offset` that says where its taps look, two numbers each.

    The offsets begin at 0, so that it begins as the convolution whose weight it has.
    """

    def __init__(self, c: int, m: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(c, m, 3, stride, dilation, dilation, bias=False)
        self.offset = Conv2d(c, 2 * 9, 3, stride, dilation, dilation)

    def forward(self, x: Any) -> Tensor:  # type: ignore[override]
        return super().forward(x, self.offset(x))


class DeformBlock(BasicBlock):
    """`BasicBlock` of deformable convolutions."""

    conv = OffsetConv2d


class DeformResNet(ResNet):
    """`ResNet` whose last stage is of `DeformBlock`s. Parameters of the other stages, and all `weight`s, have the names
    of the network without."""

    def begin(self) -> None:
        super().begin()
        for module in self.modules().values():
            if isinstance(module, OffsetConv2d):
                for cell in module.offset.cells("parameter").values():
                    cell.init = init.zeros

    def block_of(self, stage: int) -> Any:
        return DeformBlock if stage == self.stages else BasicBlock


MODELS: dict[str, dict[str, Any]] = {
    "deform_resnet18": {
        "about": "residual network of 18 layers, deformable convolutions in the last stage",
        "make": DeformResNet,
        "in_channels": 3,
        "input_size": 224,
    },
}
