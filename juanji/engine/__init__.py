"""The engine: from a traced function to a plan of machine code that threads run."""

from juanji.engine.compiled import Compiled as Compiled
from juanji.engine.compiled import compile as compile
