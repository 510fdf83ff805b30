"""juanji models"""

from __future__ import annotations

from juanji import models as registry


def models() -> None:
    """List the networks: the images they take by default, and their parameters for ten classes."""
    for name in registry.list():
        network = registry.create(name)
        height, width = network.config["input_size"]
        images = f"{height}×{width}×{network.config['in_channels']}"
        count = sum(tensor.size for tensor in network.parameters().values())
        print(f"{name:<14}{images:>8}{count:>9,} parameters  {registry.MODELS[name]['about']}")
