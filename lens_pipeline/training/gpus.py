"""What a process computes on, refused where it can't do what is asked of it; the first to touch CUDA."""

import re

import torch

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.training.choices import Device, Precision
from lens_pipeline.training.processes import what_to_set

_BF16_FROM = (8, 0)
_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)[af]?")


def device_for(
    device: Device, index: int = 0, *, wanted: int = 1, precision: Precision = Precision.float32
) -> torch.device:
    """Return the device of a process.

    Parameters
    ----------
    index : int
        Which of this machine's GPUs, from 0.
    wanted : int
        GPUs that all processes on this machine want, for the message.
    precision : Precision
        What it will multiply in. bfloat16 begins with compute capability 8.0; what is older only emulates it.

    Raises
    ------
    ConfigError
        If there is no such GPU, torch was built without kernels for it, or it has no bfloat16 and that was asked for.
    """
    if device is Device.cpu:
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found <= index:
        raise ConfigError(
            f"device is cuda and {wanted} process(es) want a GPU each; torch {torch.__version__} finds {found} on this "
            f"machine. {what_to_set(found)} Where nvidia-smi shows more, its driver is too old for "
            "this torch, or CUDA_VISIBLE_DEVICES hides them."
        )
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    built_for = torch.cuda.get_arch_list()
    if not any(_runs_on(architecture, capability) for architecture in built_for):
        raise ConfigError(
            f"torch {torch.__version__} has no kernels for {name} (sm_{capability[0]}{capability[1]}), only for "
            f"{', '.join(built_for)}. Install another build of torch; the one for a V100 (sm_70): "
            "make install LOCK=requirements-cuda12.lock"
        )
    if precision is Precision.bf16 and capability < _BF16_FROM:
        raise ConfigError(
            f"precision is bf16, and {name} (compute capability {capability[0]}.{capability[1]}) doesn't multiply in "
            "bfloat16. Set precision: float16, which goes with a gradient scaler, or float32."
        )
    return torch.device("cuda", index)


def _runs_on(architecture: str, capability: tuple[int, int]) -> bool:
    """Tell whether a GPU runs what was compiled for an architecture.

    Machine code (``sm_86``) runs on the same major version from its minor one on, intermediate code (``compute_120``) on
    everything from it on (CUDA C++ programming guide, binary and PTX compatibility).
    """
    parsed = _ARCHITECTURE.fullmatch(architecture)
    if parsed is None:
        return False
    built = int(parsed[2]), int(parsed[3])
    return built <= capability and (parsed[1] == "compute" or built[0] == capability[0])
