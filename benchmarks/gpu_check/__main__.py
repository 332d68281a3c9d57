"""`python benchmarks/gpu_check`; see :mod:`runner`."""

from environment import fail
from runner import main

try:
    main()
except (OSError, ValueError) as error:
    fail(str(error))
