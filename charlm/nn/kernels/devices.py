"""What is to be known of a device beside a figure that was measured on it."""

from __future__ import annotations

import subprocess

import torch

__all__ = ["facts", "precision"]


def precision(device: torch.device) -> str:
    """How products are computed on a GPU, both flags of TF32 named, as torch sets them apart; empty elsewhere.

    >>> precision(torch.device("cpu"))
    ''
    """
    if device.type != "cuda":
        return ""
    names = {True: "on", False: "off"}
    products, layers = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    mixed = "bfloat16 under autocast, " if torch.cuda.is_bf16_supported() else ""
    return f"{mixed}TF32 {names[products]} in products and {names[layers]} in cuDNN"


def facts(device: torch.device) -> str:
    """Device, driver and versions in one line.

    >>> facts(torch.device("cpu")).startswith("cpu, torch 2.")
    True
    """
    versions = f"torch {torch.__version__}"
    if device.type != "cuda":
        return f"{device}, {versions}"
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    name = torch.cuda.get_device_name(device)
    return f"{name}, driver {_driver()}, {versions}, CUDA {torch.version.cuda}, cuDNN {cudnn}, Triton {_triton()}"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().partition("\n")[0]


def _triton() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"
