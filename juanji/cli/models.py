"""juanji models"""

from __future__ import annotations

from juanji import models as registry

ABOUT = {
    "batchnorm_net": "convolutions with batch normalisation (note 003)",
    "cnn_small": "two 5×5 convolutions, two poolings, dense 128 (note 000)",
    "lenet5": "LeNet-5 as used today: ReLU, max pooling, any input size",
    "lenet5_1998": "LeNet-5 as published, for 32×32 images",
    "perceptron": "three dense layers of 256 (note 003)",
}


def models() -> None:
    """List the networks: the images they take by default, and their parameters for ten classes."""
    for name in registry.list():
        network = registry.create(name)
        height, width = network.config["input_size"]
        images = f"{height}×{width}×{network.config['in_channels']}"
        count = sum(tensor.size for tensor in network.parameters().values())
        print(f"{name:<14}{images:>8}{count:>9,} parameters  {ABOUT.get(name, '')}")
