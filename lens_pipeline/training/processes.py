"""Starting and ending torchrun so that nothing of it outlives its launcher. Imports no torch."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lens_pipeline.contracts.errors import TrainingError, first_few
from lens_pipeline.training.choices import Device
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.folder import TOKEN

ATTEMPT = "LENS_PIPELINE_TRAINING_ATTEMPT"
# torchrun waits so long for ranks that were asked to stop, before it kills them; torch 2.10 doesn't know of it and waits 30,
# unless the supervisor ends it before.
_SHUTDOWN_SECONDS = 24
_AGENT = "LENS_PIPELINE_TRAINING_AGENT"
_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 4.0
# The kernel ends a killed process at once, unless it waits for a disk or a device.
_KILL_SECONDS = 5.0
_libc = ctypes.CDLL(None)


def die_with_parent(parent: int | None = None, how: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to end this process when its parent ends, however that happens (Linux).

    Parameters
    ----------
    how : signal.Signals
        Signal that it gets.
    parent : int, optional
        Process id that the parent must have; if it is gone already, so is this process at once. By default that of the
        torchrun that `start` started, where it did.
    """
    parent = parent or int(os.environ.get(_AGENT, "0")) or os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, how, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), how)


def torchrun_command(config: TrainingConfig, specification: Path, attempt: Path) -> list[str]:
    """Build the command that starts the ranks of one attempt.

    It meets through a file of the attempt's own folder, so that a restart never meets what a killed start left behind,
    and no port is opened beyond the loopback.
    """
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes=1",
        f"--nproc-per-node={config.world_size}",
        "--max-restarts=0",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={attempt / 'rendezvous'}",
        "--rdzv-conf=store_type=file",
        f"--rdzv-id={attempt.name}",
        f"--log-dir={attempt / 'logs'}",
        "--redirects=3",
        "-m",
        "lens_pipeline.training",
        str(specification),
    ]


def torchrun_environment(config: TrainingConfig, attempt: Path, token: str) -> dict[str, str]:
    """Environment of torchrun and its ranks: whose they are, loopback only, threads divided."""
    threads = config.threads_per_rank or max(1, len(os.sched_getaffinity(0)) // config.world_size)
    return {
        **compute_environment(threads),
        ATTEMPT: str(attempt),
        TOKEN: token,
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(_SHUTDOWN_SECONDS),
    }


def compute_environment(threads: int) -> dict[str, str]:
    """Environment of a process that computes with torch: its threads, deterministic cuBLAS, and a patient malloc.

    By default glibc gives large blocks back to the kernel at once and gets them again, page by page, in every step; with
    these bounds a training step on a CPU takes a fifth less time, for at most 256 MB that a process keeps.
    """
    return {
        "MALLOC_MMAP_THRESHOLD_": str(128 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }


def start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process that dies with this thread, in a group of its own, its output in a file.

    Its children find its process id in their environment, so that one which starts while it dies knows that it did.
    """
    launcher = os.getpid()
    with open(log, "wb") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", f'{_AGENT}=$$ exec "$@"', "sh", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(launcher),
        )


def end(process: subprocess.Popen[bytes], patience: float = _GRACE_SECONDS) -> None:
    """End a process and its children: politely, then after some seconds by force (the ranks die with torchrun)."""
    for how, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        if seconds == 0:
            continue
        process.send_signal(how)
        deadline = None if seconds is None else time.monotonic() + seconds
        while process.poll() is None and (deadline is None or time.monotonic() < deadline):
            time.sleep(0.05)


def processes_of(token: str) -> dict[int, int | None]:
    """Every living process of an attempt, by the token in its environment: its id, and its rank if it is one."""
    wanted, found = f"{TOKEN}={token}".encode(), {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            # A process that is gone meanwhile, or another user's.
            with contextlib.suppress(OSError):
                environment = Path(entry.path, "environ").read_bytes().split(b"\0")
                if wanted in environment:
                    found[int(entry.name)] = _rank_in(environment)
    return found


def end_all(token: str) -> None:
    """Kill whatever is left of an attempt, and return when it is gone.

    Raises
    ------
    TrainingError
        If a process can't be killed.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while left := processes_of(token):
        if time.monotonic() > deadline:
            raise TrainingError(
                f"{len(left)} processes of an earlier attempt can't be killed (ids {first_few(left)}): they wait in the "
                "kernel for a disk or a device. Nothing new was started beside them. Wait, or restart this machine."
            )
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def dump_stacks(token: str) -> list[int]:
    """Have every rank write what its threads are doing to its log, and return the ranks that can't: those that are stopped.

    A rank answers to SIGUSR1 from its first line on (`lens_pipeline.training.__main__`).
    """
    stopped = []
    for pid, rank in processes_of(token).items():
        with contextlib.suppress(OSError):
            if rank is not None and _state(pid) in "Tt":
                stopped.append(rank)
            elif rank is not None:
                os.kill(pid, signal.SIGUSR1)
    return sorted(stopped)


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Note SIGTERM instead of dying of it: yields a function that says whether one came.

    A machine that is about to be taken away sends it. Outside the main thread, where no signal can be caught, it never does.
    """
    came = threading.Event()
    with _handled((signal.SIGTERM,), came.set):
        yield came.is_set


def run_for_us(command: list[str]) -> int:
    """Run a command to its end, in this terminal, and pass on what asks this process to stop; it doesn't outlive this process.

    It is given the time to stop in order: a Ctrl-C reaches it by itself, a SIGTERM is handed on, and where this process is
    killed it gets a SIGTERM.

    Returns
    -------
    int
        Its exit code; that of a process ended by SIGTERM if this one was asked to stop, however the command took it.
    """
    own = os.getpid()
    process = subprocess.Popen(command, preexec_fn=lambda: die_with_parent(own, signal.SIGTERM))
    asked = threading.Event()

    def hand_on() -> None:
        asked.set()
        process.send_signal(signal.SIGTERM)

    with _handled((signal.SIGTERM,), hand_on), _handled((signal.SIGINT,), asked.set):
        while (code := process.poll()) is None:
            time.sleep(0.05)
    return -signal.SIGTERM if asked.is_set() else code


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off SIGINT and SIGTERM for the seconds that ending processes takes: a second Ctrl-C must not leave any behind."""
    with _handled((signal.SIGINT, signal.SIGTERM), lambda: None):
        yield


@contextmanager
def _handled(signals: tuple[signal.Signals, ...], call: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: call()) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _rank_in(environment: list[bytes]) -> int | None:
    return next((int(pair[5:]) for pair in environment if pair.startswith(b"RANK=")), None)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process, and end it if anything, Ctrl-C included, interrupts the waiting. Returns its exit code."""
    try:
        # Not process.wait(): a SIGINT handler that restarts system calls, as polars installs one, would never let go.
        while process.poll() is None:
            time.sleep(0.05)
    finally:
        end(process)
    assert process.returncode is not None
    return process.returncode


def count_gpus() -> int:
    """GPUs that this process may use, found without touching CUDA (a step that does can't start ranks that do)."""
    devices = len([path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return devices
    return min(devices, len([name for name in visible.split(",") if name.strip() not in ("", "-1")]))


def refuse_missing_gpus(device: Device, wanted: int) -> str | None:
    """Say why a device can't be had, or None."""
    found = count_gpus()
    if device is Device.cpu or found >= wanted:
        return None
    return (
        f"device is cuda and {wanted} process(es) want a GPU each, but this machine offers {found}. "
        f"{what_to_set(found)}"
    )


def what_to_set(gpus: int) -> str:
    """Say what goes with the GPUs that there are."""
    return "Set device: cpu" + (f", or at most {gpus} processes." if gpus else ".")
