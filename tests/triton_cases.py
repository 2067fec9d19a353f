"""Run as a program with TRITON_INTERPRET=1: errors of the Triton kernels against the formulas, as JSON.

    TRITON_INTERPRET=1 python -m tests.triton_cases CELL

Errors are shares of 1 + the largest number, over outputs, final states and all gradients.
"""

from __future__ import annotations

import json
import sys

import torch

from charlm.nn.kernels import triton_layers
from charlm.nn.kernels.triton_layers import error_of
from tests.nn.test_kernels import numbers

CASES = {
    "ids, resets, two layers": {"hidden": 19, "shape": (4, 21), "resets": True, "layers": 2},
    "dense, no bias": {"hidden": 5, "shape": (3, 2), "dense": True, "bias": False},
    "one-hot, one step, one lane": {"hidden": 33, "shape": (1, 1), "embedded": False},
}


def main(cell: str) -> None:
    calls = []
    launch = triton_layers._launch
    triton_layers._launch = lambda *arguments: (calls.append(1), launch(*arguments))  # type: ignore[assignment]
    errors = {}
    for name, case in CASES.items():
        ours = numbers(cell, "fused", dtype=torch.float32, **case)
        right = numbers(cell, "reference", **case)
        errors[name] = max(
            float((a.double() - b).abs().max() / (1 + b.abs().max())) for a, b in zip(ours, right, strict=True)
        )
    bfloat16 = error_of("cpu", cell, 20, "bfloat16")
    sys.stdout.write(json.dumps({"float32": errors, "bfloat16": bfloat16, "launches": len(calls)}))


if __name__ == "__main__":
    main(sys.argv[1])
