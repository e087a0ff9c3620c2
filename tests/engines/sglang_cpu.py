"""SGLang's server on a machine without GPU: ``python sglang_cpu.py --model-path DIR ...``.

Runs in SGLang's environment. Its CUDA release from PyPI serves a Llama on a CPU once two things
are out of the way that are imported and never called: ``sgl_kernel`` (a stub stands in, see
``stubs/``) and the compiled operators of a torchvision made for CUDA. Spawned children import
this module again, so both stand at its top. The engine itself (HTTP, tokenizer, scheduler, radix
cache, metrics) is SGLang's own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from torch import library

STUBS = str(Path(__file__).parent / "stubs")
if STUBS not in sys.path:
    sys.path.insert(0, STUBS)
os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")

_TORCHVISION = library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _TORCHVISION.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

if __name__ == "__main__":
    from sglang.launch_server import run_server
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    try:
        run_server(prepare_server_args(sys.argv[1:]))
    finally:
        kill_process_tree(os.getpid(), include_parent=False)
