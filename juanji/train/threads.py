"""One thread for NumPy's matrix products, where the definitions do the work (JUANJI_BACKEND=numpy, and diagnoses).

The networks that the definitions can train are small: more threads do not help them, they spin against whatever else
runs, and the number of threads would decide in which order numbers are added up. With one, the same seed gives the
same bits however many cores there are.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager
from typing import Any


@functools.cache
def controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Inside, BLAS uses one thread."""
    limit: AbstractContextManager[Any] = controller().limit(limits=1, user_api="blas")
    return limit
