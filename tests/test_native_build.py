"""Building the generated code: the cache, and machines without a compiler or a usable folder."""

import ast
import ctypes
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hydrofoil.native
from hydrofoil import State, draw_split, load, read_recipe
from hydrofoil.native import Native, Unsupported, build, job, make_program, program
from hydrofoil.train.executors import prepare
from tests.native_cases import OPTIMIZERS, classifier, made_pictures

SEVEN = "int seven(void) { return 7; }"
POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "posix", "syslog"}

try:
    build.compiler()
except Unsupported:
    pytest.skip("no C compiler", allow_module_level=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, with a space and an accent in its name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my caché"))
    return build.cache_folder()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a compiler."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    build.compiler.cache_clear()
    yield
    build.compiler.cache_clear()


def works(library: build.Library) -> bool:
    """Return whether the library's code runs."""
    return library.handle.seven() == 7


def test_a_library_is_compiled_once_and_then_loaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build.build(SEVEN)
    assert works(first)
    assert first.compiled
    assert [file.suffix for file in cache.iterdir()] == [".so"]
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled twice"))
    second = build.build(SEVEN)
    assert works(second)
    assert (second.compiled, second.note) == (False, "")
    assert build.is_built(SEVEN)


def test_a_truncated_library_is_built_again(cache: Path) -> None:
    cache.mkdir(parents=True)
    build.library_path(SEVEN).write_bytes(b"")
    library = build.build(SEVEN)
    assert works(library)
    assert library.compiled


def refuse_to_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Make the loader refuse a folder as it refuses a noexec mount; return what was compiled."""
    load, compile_to, compiled = ctypes.CDLL, build._compile, list[Path]()

    def loader(path: str) -> ctypes.CDLL:
        if folder in Path(path).parents:
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    def compiler(code: str, path: Path, flags: tuple[str, ...]) -> None:
        compiled.append(path)
        compile_to(code, path, flags)

    monkeypatch.setattr(build.ctypes, "CDLL", loader)
    monkeypatch.setattr(build, "_compile", compiler)
    return compiled


def test_a_noexec_cache_is_replaced_by_a_temporary_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_load(cache, monkeypatch)
    library = build.build(SEVEN)
    assert works(library)
    reason = "failed to map segment from shared object"
    assert library.note == f"no cache ({cache}: {reason}): the code is compiled in every run"


def test_a_cache_on_a_noexec_mount_is_replaced_by_a_temporary_folder(cache: Path) -> None:
    cache.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "noexec,mode=755,size=4m", "tmpfs", str(cache)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("needs the right to mount")
    except OSError:
        pytest.skip("no mount command")
    try:
        library = build.build(SEVEN)
    finally:
        subprocess.run(["umount", "--lazy", str(cache)], check=True)
    assert works(library)
    assert "failed to map segment" in library.note


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.parent.write_text("a file stands where the cache should be")
    library = build.build(SEVEN)
    assert works(library)
    assert library.note == f"no cache ({cache}: Not a directory): the code is compiled in every run"
    model = classifier((1, 3, 3), [])
    assert model
    optimizer, pictures = OPTIMIZERS["sgd"](model.network.parameters()), made_pictures((1, 3, 3), 4)
    assert Native(model, optimizer, pictures, batch_size=4).note == library.note


def test_a_folder_that_others_can_write_to_is_not_loaded_from(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    library = build.build(SEVEN)
    assert works(library)
    assert "other users can write there" in library.note
    assert not list(cache.iterdir())


def test_where_no_folder_allows_code_native_is_refused_in_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_load(Path("/"), monkeypatch)
    with pytest.raises(Unsupported, match=r"no folder for native code \(.*; .*\)") as refusal:
        build.build(SEVEN)
    assert "\n" not in str(refusal.value)


def test_without_a_compiler_native_is_refused_in_one_line(no_compiler: None) -> None:
    with pytest.raises(Unsupported) as refusal:
        build.build(SEVEN)
    assert str(refusal.value) == "no C compiler (cc, gcc or clang)"


def test_a_compiler_that_fails_is_quoted_in_one_line(cache: Path) -> None:
    with pytest.raises(Unsupported, match=r"^the C compiler failed: .*error") as refusal:
        build.build("int seven(void) { return missing; }")
    assert "\n" not in str(refusal.value)


def test_a_compiler_that_does_not_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = tmp_path / "cc"
    stub.write_text("#!/bin/sh\necho 'error: no developer tools' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("CC", str(stub))
    build.compiler.cache_clear()
    with pytest.raises(Unsupported, match="does not run: error: no developer tools"):
        build.compiler()
    build.compiler.cache_clear()


def test_no_posix_only_module_is_imported() -> None:
    for path in Path(hydrofoil.native.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert not POSIX_ONLY & {name.name for name in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert node.module not in POSIX_ONLY, path


def test_c_and_python_agree_on_the_job(cache: Path) -> None:
    names = [name for name, _ in job.Job._fields_]
    offsets = ", ".join(f"offsetof(Job, {name})" for name in names)
    code = (
        f"#include <stddef.h>\n#include <stdint.h>\n{job.struct()}\n"
        f"const int64_t offsets[] = {{{offsets}, sizeof(Job)}};\n"
    )
    array = (ctypes.c_int64 * (len(names) + 1)).in_dll(build.build(code).handle, "offsets")
    wanted = [*(getattr(job.Job, name).offset for name in names), ctypes.sizeof(job.Job)]
    assert list(array) == wanted


def test_the_layout_and_the_code_are_made_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a: (made.append(name), function(*a))[1])

    counted(sys.modules["hydrofoil.native.plan"], "lay_out")
    counted(program, "write")
    model = classifier((1, 3, 3), ["flatten", "linear 5"])
    assert model
    optimizer, pictures = OPTIMIZERS["sgd"](model.network.parameters()), made_pictures((1, 3, 3), 4)
    given = make_program(model, optimizer, 4)
    Native(model, optimizer, pictures, batch_size=4, program=given)
    assert sorted(made) == ["lay_out", "write"]
    with pytest.raises(ValueError, match="code for batches of 4, not of 3"):
        Native(model, optimizer, pictures, batch_size=3, program=given)


def test_preparing_a_training_generates_its_code_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = program.write
    monkeypatch.setattr(program, "write", lambda *a: (written.append(""), write(*a))[1])
    recipe = read_recipe("digits", ["train.execute=native"])
    pictures = load(recipe.data.source)
    model = hydrofoil.build(recipe, pictures.shape, pictures.classes)
    split = draw_split(pictures, **recipe.split_options())
    prepared = prepare(model, pictures, split, recipe, State.fresh(model, recipe))
    assert prepared.executor.name == "native"
    assert len(written) == 1
