r"""Isaac Lab's PhysX side without a GPU: for measurements of conformance only.

    runs/isaaclab/venv/bin/python tests/conformance/physx_cpu.py \
        --backend isaaclab_physx --policy walk --protocol clip

is `benchmarks/track.py` with these flags.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from bm_envs import cli
from bm_envs.errors import BackendUnavailable


def ignore_pinned() -> None:
    """Make Warp take ordinary memory where Isaac Lab asks for memory pinned for a GPU.

    It does so whatever the device, and without a driver there is none. Warp's own constructor then
    has to be told. Its name is private, and known for warp-lang 1.17.

    Raises:
        BackendUnavailable: no GPU, and another Warp.
    """
    import warp as wp
    from warp._src.types import array

    if wp.is_cuda_available():
        return
    if not hasattr(array, "_init_new"):
        raise BackendUnavailable(
            f"There is no GPU, and Warp {wp.__version__} is not the one that can do without."
        )
    make = array._init_new

    def unpinned(self, dtype, shape, strides, device, pinned):
        return make(self, dtype, shape, strides, device, False)

    array._init_new = unpinned


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    track = importlib.import_module("track")
    ignore_pinned()
    cli.run(track.main, track.Config)
