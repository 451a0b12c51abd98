"""What checkpoints of a file of 1 GiB take, beside `cp` of the same file.

    python -m benchmarks.big_files [--rounds N] [--json]

`docs/benchmarks.md` has the method and figures.
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import timing
from benchmarks.timing import BenchmarkError, Row
from opencode_tasks.checkpoints.chunks import Big, Chunks

MIB = 1 << 20
SIZE_MIB = 1024
_GOAL = 1.0
_OVERWRITTEN = 4
FLOORS = {"first": ("cp", "sync"), "overwritten": ("cp",), "inserted": ("cp",), "restore": ("cp, sync, mv",)}


def _random(luck: random.Random) -> bytes:
    return luck.randbytes(MIB)


def _half(luck: random.Random) -> bytes:
    """Every other 32 KiB are one byte, another one each time."""
    return b"".join(luck.randbytes(32768) + bytes([luck.randrange(1, 256)]) * 32768 for _ in range(16))


KINDS: dict[str, Callable[[random.Random], bytes]] = {"incompressible": _random, "half compressible": _half}


@dataclass
class Bed:
    """One file of `SIZE_MIB`, which changes, and what each thing done with it took."""

    top: Path
    mebibyte: Callable[[random.Random], bytes]
    luck: random.Random = field(default_factory=lambda: random.Random(1))
    took_ms: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    stored_b: dict[str, list[int]] = field(default_factory=dict)
    counts: bool = False

    @property
    def file(self) -> Path:
        return self.top / "big"

    @property
    def chunks(self) -> Chunks:
        return Chunks(self.top / "chunks")

    def make(self) -> None:
        self.top.mkdir()
        with self.file.open("wb") as f:
            for _ in range(SIZE_MIB):
                f.write(self.mebibyte(self.luck))

    def round(self) -> None:
        """Everything right after its floor; what is compared most closely, several times."""
        self.copy()
        shutil.rmtree(self.top / "chunks", ignore_errors=True)
        first = overwritten = self.put("first", None)
        for _ in range(_OVERWRITTEN):
            with self.file.open("r+b") as f:
                f.seek(self.luck.randrange(SIZE_MIB - 1) * MIB + 12345)
                f.write(self.mebibyte(self.luck))
            self.copy()
            overwritten = self.put("overwritten", overwritten)
        self.replace_copy()
        self.timed("restore", lambda: self.chunks.restore(first, self.top, "big", now=overwritten))
        if self.chunks.put(self.top, "big", was=overwritten) != first:
            raise BenchmarkError("what was restored is not what had been there")
        inserted = self.top / "inserted"
        with inserted.open("wb") as into, self.file.open("rb") as f:
            into.write(self.mebibyte(self.luck))
            shutil.copyfileobj(f, into, MIB)
        inserted.replace(self.file)
        self.copy()
        self.put("inserted", first)

    def copy(self) -> None:
        copy = self.top / "copy"
        self.timed("cp", lambda: subprocess.run(("cp", self.file, copy), check=True))
        self.timed("sync", lambda: subprocess.run(("sync", copy), check=True), settled=False)
        copy.unlink()

    def replace_copy(self) -> None:
        """What `restore` does: a new file, on the disk, renamed over one of the same size, which is given back."""
        copy = self.top / "copy"
        shutil.copyfile(self.file, copy)
        words = "cp -- big new && sync new && mv new copy"
        self.timed("cp, sync, mv", lambda: subprocess.run(("sh", "-c", words), cwd=self.top, check=True))
        copy.unlink()

    def put(self, row: str, was: Big | None) -> Big:
        made: list[Big] = []
        before_b = self.chunks.used_b()
        self.timed(row, lambda: made.append(self.chunks.put(self.top, "big", was=was)))
        if self.counts:
            self.stored_b.setdefault(row, []).append(self.chunks.used_b() - before_b)
        return made[0]

    def timed(self, row: str, call: Callable[[], object], *, settled: bool = True) -> None:
        if settled:
            os.sync()
        began = time.perf_counter()
        call()
        if self.counts:
            self.took_ms.setdefault(row, []).append((time.perf_counter() - began) * 1000)
            if row in FLOORS:
                floor_ms = sum(self.took_ms[each][-1] for each in FLOORS[row])
                self.ratios.setdefault(row, []).append(self.took_ms[row][-1] / floor_ms)

    def ms(self, row: str) -> float:
        return statistics.median(self.took_ms[row])

    def stored_mib(self, row: str) -> float:
        return statistics.median(self.stored_b[row]) / MIB


def measured(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="big-files.") as root:
        beds = {kind: Bed(Path(root, kind), mebibyte) for kind, mebibyte in KINDS.items()}
        for bed in beds.values():
            bed.make()
        for number in range(-1, rounds):
            for bed in beds.values():
                bed.counts = number >= 0
                bed.round()
        return [row for kind, bed in beds.items() for row in _rows(kind, bed)]


def _rows(kind: str, bed: Bed) -> list[Row]:
    def row(what: str, name: str, goal: float | None = None) -> Row:
        figure = f"{bed.ms(name):.0f} ms" + (f", {bed.stored_mib(name):.1f} MiB stored" if name in bed.stored_b else "")
        floor = f"{sum(map(bed.ms, FLOORS[name])):.0f} ms: {', '.join(FLOORS[name])}"
        ratio = statistics.median(bed.ratios[name])
        said, holds = (f"≤ {goal:g} times", ratio <= goal) if goal else ("", None)
        return Row(f"{what}, {kind}", figure, floor, ratio, said, holds)

    return [
        row("the first", "first"),
        row("1 MiB overwritten", "overwritten", _GOAL),
        row("1 MiB inserted at the front", "inserted"),
        row("back to before", "restore"),
    ]


if __name__ == "__main__":
    raise SystemExit(timing.main(sys.argv[1:], measured, what="What checkpoints of a big file take.", rounds=5))
