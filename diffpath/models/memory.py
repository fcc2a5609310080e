"""Running out of memory, as each device reports it."""

import torch

# PyTorch reports a full host, MPS and CUDA's libraries by plain RuntimeErrors
_SIGNS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
    "invalid buffer size",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device's or the machine's memory did not suffice."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def release_memory(device: torch.device) -> None:
    """Gives cached memory back, so that a smaller attempt finds room."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
