"""Networks by name: `jj.models.create("lenet5", classes=10)`."""

from juanji.models.registry import MODELS, create
from juanji.models.registry import names as list

__all__ = ["MODELS", "create", "list"]
