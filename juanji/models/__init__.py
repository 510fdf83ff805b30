"""Networks by name: `jj.models.create("lenet5", classes=10)`."""

from juanji.models.registry import MODELS, OPTIONS, create, options
from juanji.models.registry import names as list

__all__ = ["MODELS", "OPTIONS", "create", "list", "options"]
