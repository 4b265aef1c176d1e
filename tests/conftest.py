"""What all tests share: hypothesis does not fail a test for being slow on a busy machine,
Triton's kernels are interpreted where there is no GPU to compile them for, and no model in this
process tries how many threads it is fastest on, which would be another number at each start."""

import os
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("streamgen", deadline=None)
settings.load_profile("streamgen")

if shutil.which("nvidia-smi") is None:  # before anything imports Triton, which asks only once
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session", autouse=True)
def _one_thread_a_core() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streamgen.serving.threads.candidates", lambda cores: (cores,))
        yield
