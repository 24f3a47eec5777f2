"""Devices that torch sees and cannot use, failures by their kind, threads under a quota."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hydrofoil import (
    HydrofoilError,
    State,
    build,
    draw_split,
    load,
    pick_device,
    prepare,
    read_recipe,
)
from hydrofoil.cli.main import main
from hydrofoil.device import (
    available_threads,
    cpu_quota,
    cuda_problem,
    exact,
    free_memory,
    is_device_failure,
    is_out_of_memory,
    thread_rule,
)

BUILT = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # torch 2.14 for CUDA 13


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let torch see a card of some capability, whose first kernel may fail."""

    def seen(capability: tuple[int, int], error: str = "", built: list[str] = BUILT) -> None:
        cuda_problem.cache_clear()
        for name, value in (
            ("is_available", True), ("device_count", 1), ("get_device_capability", capability),
            ("get_arch_list", built), ("get_device_name", "Some Card"),
        ):  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)

        def ones(*_: object, **__: object) -> torch.Tensor:
            if error:
                raise torch.AcceleratorError(error)
            return torch.zeros(1)

        monkeypatch.setattr("hydrofoil.device.torch.ones", ones)

    yield seen
    cuda_problem.cache_clear()


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (8, 9), (9, 0), (12, 1)])
def test_a_card_that_works_is_chosen(card: Any, capability: tuple[int, int]) -> None:
    card(capability)
    assert pick_device().type == "cuda"
    assert pick_device("cuda:0") == torch.device("cuda:0")


@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (3, 5)])
def test_a_card_that_torch_was_not_built_for_leaves_the_cpu_and_is_named(
    card: Any, capability: tuple[int, int]
) -> None:
    card(capability)
    assert pick_device().type == "cpu"
    with pytest.raises(HydrofoilError, match=r"Some Card \(sm_\d\d\) is not supported by torch"):
        pick_device("cuda")
    recipe, pictures = read_recipe("digits", ["train.execute=eager"]), load("digits")
    split = draw_split(pictures, **recipe.split_options())
    model = build(recipe, pictures.shape, pictures.classes)
    line = prepare(model, pictures, split, recipe, State.fresh(model, recipe)).line
    assert "; cuda is not available: Some Card (sm_" in line
    assert "which was built for sm_75, sm_80" in line


def test_a_card_that_another_process_holds_leaves_the_cpu(card: Any) -> None:
    card((9, 0), "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel …")
    assert pick_device().type == "cpu"
    with pytest.raises(HydrofoilError) as caught:
        pick_device("cuda")
    assert str(caught.value) == (
        "--device cuda: CUDA device 0 does not work: CUDA error: "
        "CUDA-capable device(s) is/are busy or unavailable.\nUse --device cpu instead."
    )


def test_intermediate_code_and_unknown_builds_count(card: Any) -> None:
    card((6, 1), built=["sm_50", "compute_50"])
    assert pick_device().type == "cuda"
    card((9, 0), built=["sm_90a"])
    assert pick_device().type == "cuda"
    card((9, 4), built=[])
    assert pick_device().type == "cuda"


def test_there_is_one_mps_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps:0").type == "mps"
    with pytest.raises(HydrofoilError, match="mps:1: torch"):
        pick_device("mps:1")


# ── failures ─────────────────────────────────────────────────────────────────────────────────────

MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
]
LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    torch.AcceleratorError("CUDA error: unspecified launch failure"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
]
OURS = [ValueError("memory"), RuntimeError("shared memory is full of bugs"), KeyError("CUDA error")]


@pytest.mark.parametrize("error", [*MEMORY, *LOST, *OURS], ids=str)
def test_a_lack_of_memory_and_a_lost_device_are_told_apart(error: Exception) -> None:
    assert is_out_of_memory(error) == (error in MEMORY)
    assert is_device_failure(error) == (error in LOST)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (MEMORY[1], 2, "out of memory: CUDA out of memory. Tried"),
        (LOST[0], 2, "the GPU failed: CUDA error: an illegal memory access"),
        (OURS[1], 1, "This is a bug in hydrofoil"),
    ],
)
def test_the_command_line_says_which(
    error: Exception, status: int, text: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("hydrofoil.session.data.load", fail)
    with pytest.raises(SystemExit) as left:
        main(["train", "digits"])
    said = capsys.readouterr().err
    assert left.value.code == status
    assert text in said
    assert ("Traceback" in said) == (status == 1)


# ── threads ──────────────────────────────────────────────────────────────────────────────────────


def system(root: Path, cgroup: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


V2 = "0::/jobs/mine\n"
V1 = "4:memory:/jobs\n3:cpu,cpuacct:/jobs/mine\n0::/\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        (V2, {"jobs__mine__cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"jobs__mine__cpu.max": "max 100000\n"}, None),
        (V2, {"jobs__mine__cpu.max": "max 100000\n", "jobs__cpu.max": "300000 100000\n"}, 3.0),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),  # a container's own namespace
        (V2, {}, None),
        (V2, {"jobs__mine__cpu.max": "what\n"}, None),
        (V1, {"cpu,cpuacct__jobs__mine__cpu.cfs_quota_us": "50000\n",
              "cpu,cpuacct__jobs__mine__cpu.cfs_period_us": "100000\n"}, 0.5),
        (V1, {"cpu__cpu.cfs_quota_us": "400000\n", "cpu__cpu.cfs_period_us": "100000\n"}, 4.0),
        (V1, {"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"}, None),
    ],
)  # fmt: skip
def test_a_cpu_quota_is_read_from_either_version_of_control_groups(
    cgroup: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    assert cpu_quota(system(tmp_path, cgroup, **files)) == quota


STAT = "cache 70\ninactive_file 30\nactive_file 20\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "free"),
    [
        (V2, {}, 8192),
        (V2, {"jobs__mine__memory.max": "max\n", "jobs__mine__memory.current": "900\n"}, 8192),
        (V2, {"jobs__mine__memory.max": "1000\n", "jobs__mine__memory.current": "900\n",
              "jobs__mine__memory.stat": STAT}, 150),
        (V2, {"jobs__memory.max": "1000\n", "jobs__memory.current": "2000\n",
              "jobs__memory.stat": STAT}, 0),
        (V1, {"memory__jobs__memory.limit_in_bytes": "1000\n",
              "memory__jobs__memory.usage_in_bytes": "900\n",
              "memory__jobs__memory.stat": STAT + "total_inactive_file 60\ntotal_active_file 5\n"},
         165),
        (V1, {"memory__memory.limit_in_bytes": "9223372036854771712\n",
              "memory__memory.usage_in_bytes": "900\n", "memory__memory.stat": STAT}, 8192),
    ],
)  # fmt: skip
def test_free_memory_is_the_least_that_system_and_control_groups_allow(
    cgroup: str, files: dict[str, str], free: int, tmp_path: Path
) -> None:
    root = system(tmp_path, cgroup, **files)
    (root / "proc/meminfo").write_text("MemTotal:  99 kB\nMemAvailable:      8 kB\n")
    assert free_memory(torch.device("cpu"), root) == free


@pytest.mark.skipif(sys.platform not in ("linux", "win32", "darwin"), reason="memory is unknown")
def test_some_memory_is_free_here() -> None:
    assert 1 << 20 < (free_memory(torch.device("cpu")) or 0) < 1 << 50


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "threads"), [(None, 8), (2.5, 3), (0.4, 1), (64.0, 8)])
def test_a_quota_smaller_than_the_cores_bounds_the_threads(
    quota: float | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("hydrofoil.device.cpu_quota", lambda: quota)
    assert available_threads() == threads
    assert thread_rule(20_000_000) == thread_rule(None) == threads
    assert thread_rule(2_000_000) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert available_threads() == thread_rule(2_000_000) == 5


def test_a_gpu_computes_in_float32_with_deterministic_algorithms_and_torch_is_left_as_it_was() -> (
    None
):
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    with exact(torch.device("cuda"), 2):
        assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (True, False, False)
        assert torch.get_num_threads() == 2
    assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == before
    assert torch.get_num_threads() == 1
