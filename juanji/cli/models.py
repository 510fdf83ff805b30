"""juanji models"""

from __future__ import annotations

import math

from juanji import models as registry


def models() -> None:
    """List the networks: the images they take by default, and their parameters for ten classes."""
    for name in registry.list():
        network = registry.create(name)
        height, width = network.config["input_size"]
        images = f"{height}×{width}×{network.config['in_channels']}"
        count = sum(math.prod(cell.shape) for cell in network.cells("parameter").values())
        print(f"{name:<14}{images:>8}{count:>11,} parameters  {registry.MODELS[name]['about']}")
