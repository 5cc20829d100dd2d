"""The accelerator of this machine, by what torch 2.6 already has."""

from __future__ import annotations

import torch


def accelerator() -> torch.device | None:
    """Return the kind of accelerator (``cuda``, ``xpu``, ``mps``...) that can be used here; None without one."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def free_memory() -> None:
    """Give what torch's allocator holds and nobody uses back to the accelerator."""
    if (found := accelerator()) is not None:
        torch.get_device_module(found).empty_cache()
