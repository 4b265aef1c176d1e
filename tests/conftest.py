"""What all tests share: hypothesis does not fail a test for being slow on a busy machine, and
Triton's kernels are interpreted where there is no GPU to compile them for."""

import os
import shutil

from hypothesis import settings

settings.register_profile("streamgen", deadline=None)
settings.load_profile("streamgen")

if shutil.which("nvidia-smi") is None:  # before anything imports Triton, which asks only once
    os.environ.setdefault("TRITON_INTERPRET", "1")
