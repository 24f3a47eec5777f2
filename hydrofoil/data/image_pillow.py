"""Pillow's readers of PNG and TIFF, changed where they lose samples or depend on metadata."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

NATIVE = {"F;32BF": "F;32F", "I;32BS": "I;32S", "I;16BS": "I;16S"}  # on little endian machines
SILENCE = Lock()


class Png(PngImageFile):
    """A PNG whose samples can be unpacked otherwise than Pillow would."""

    def unpack(self, raw: str, mode: str) -> None:
        """Read the samples by another of Pillow's unpackers, of as many bits a pixel."""
        self.tile = [tile._replace(args=raw) for tile in self.tile]
        self._mode = mode or self.mode


class Tiff(TiffImageFile):
    """A TIFF that is not turned; Pillow would write all of its metadata again for that."""

    def _setup(self) -> None:
        super()._setup()
        self._size = self._tile_size
        if self.tile and self.tile[0].codec_name == "libtiff":
            # libtiff returns the machine's byte order, which Pillow takes for the file's.
            self.unpack(NATIVE.get(self.raw_mode(), self.raw_mode()))

    def load(self) -> Any:
        """Load the pixels without libtiff's messages, which it writes past Python."""
        with _silent():
            return super().load()

    def load_end(self) -> None:
        """Leave out what Pillow does with metadata when pixels are loaded."""

    def raw_mode(self) -> str:
        """Return the name of the unpacker that Pillow chose."""
        arguments = self.tile[0].args if self.tile else ""
        return str(arguments[0]) if isinstance(arguments, tuple) else ""

    def unpack(self, raw: str) -> None:
        """Read the samples by another of Pillow's unpackers, of as many bits a pixel."""
        self.tile = [
            tile._replace(args=(raw, *tile.args[1:]))
            for tile in self.tile
            if isinstance(tile.args, tuple)
        ]


@contextmanager
def _silent() -> Generator[None]:
    """Let nothing reach the process's standard error, of which there is one for all threads."""
    with SILENCE:
        try:
            kept = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(nowhere)
            os.close(kept)
