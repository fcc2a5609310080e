"""What all soak tests need."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Forks have only the thread that made them: nothing may be left to others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
