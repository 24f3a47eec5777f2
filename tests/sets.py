"""Small sets of images in every form that a source may have."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("bird", "cat", "dog")
COLORS = ((230, 60, 40), (60, 200, 70), (70, 80, 240))


def image(label: int, number: int, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """Draw an image of a class: a shape and a color of its own, on noise."""
    draw = np.random.default_rng([label, number])
    width, height = size
    made = Image.fromarray(draw.integers(0, 90, (height, width, 3), np.uint8))
    pen, box = ImageDraw.Draw(made), (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
    shape = (pen.ellipse, pen.rectangle, pen.line)[label % 3]
    shape(box, fill=COLORS[label % 3])
    return made


def write_folder(root: Path, each: int = 8, parts: tuple[str, ...] = ("",)) -> Path:
    """Write a folder of class folders, perhaps below parts, and return it."""
    for part in parts:
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(each):
                seed = 1000 * parts.index(part) + number
                image(label, seed).save(folder / f"{number}.png")
    return root


def files_below(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield each file's path below a folder, and the file."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path


def write_table(root: Path, name: str = "labels.csv", each: int = 8) -> Path:
    """Write a table with splits beside a folder of images, and return it."""
    rows = ["file_name,species,subset"]
    (root / "photos").mkdir(parents=True)
    for label, species in enumerate(CLASSES):
        for number in range(each):
            file = f"{species}-{number}.png"
            image(label, number).save(root / "photos" / file)
            part = {0: "val", 1: "test"}.get(number % 4, "train")
            rows.append(f"photos/{file},{species},{part}")
    table = root / name
    text = "\n".join(rows) + "\n"
    table.write_text(text.replace(",", "\t") if name.endswith(".tsv") else text, "utf-8")
    return table


def write_npz(path: Path, layout: str = "medmnist", each: int = 8) -> Path:
    """Write arrays as MedMNIST or Keras name them, and return the file."""
    arrays: dict[str, np.ndarray] = {}
    parts = {"medmnist": ("train", "val", "test"), "keras": ("train", "test"), "plain": ("",)}
    for part in parts[layout]:
        seed = 1000 * parts[layout].index(part)
        made = [image(label, seed + n, (16, 16)) for label in range(3) for n in range(each)]
        images_NHWC = np.stack([np.asarray(one) for one in made])
        labels_N = np.repeat(np.arange(3, dtype=np.uint8), each)
        if layout == "medmnist":
            arrays |= {f"{part}_images": images_NHWC, f"{part}_labels": labels_N[:, None]}
        elif layout == "keras":
            arrays |= {f"x_{part}": images_NHWC, f"y_{part}": labels_N}
        else:
            arrays |= {"images": images_NHWC, "labels": np.array(CLASSES)[labels_N]}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def write_parquet(path: Path, part: int = 0, each: int = 8) -> Path:
    """Write images as Hugging Face's datasets do, class names in the metadata."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    rows = [(label, 1000 * part + number) for number in range(each) for label in range(3)]
    images = [{"bytes": as_png(image(*row)), "path": f"{row[1]}.png"} for row in rows]
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ]
    )
    label = {"names": list(CLASSES), "_type": "ClassLabel"}
    known = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    schema = schema.with_metadata({"huggingface": json.dumps(known)})
    table = pa.table({"image": images, "label": [row[0] for row in rows]}, schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=7)
    return path


def as_png(made: Image.Image) -> bytes:
    """Return an image as a file's content."""
    file = io.BytesIO()
    made.save(file, "PNG")
    return file.getvalue()


def pack(folder: Path, archive: Path) -> Path:
    """Pack a folder into a .zip or .tar, and return the archive."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, path in files_below(folder):
                file.write(path, f"{folder.name}/{name}")
    else:
        with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as tar:
            tar.add(folder, folder.name)
    return archive


def _shards(root: Path) -> Path:
    write_parquet(root / "data" / "train-00000-of-00002.parquet")
    write_parquet(root / "data" / "train-00001-of-00002.parquet", part=1)
    write_parquet(root / "data" / "test-00000-of-00001.parquet", part=2, each=3)
    return root


# Every kind of source, by the function that writes one to a folder and returns its path.
KINDS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda at: write_folder(at / "pets"),
    "folder with parts": lambda at: write_folder(at / "pets", 8, ("train", "valid", "test")),
    "csv": lambda at: write_table(at / "pets"),
    "tsv": lambda at: write_table(at / "pets", "labels.tsv"),
    "folder with a table": lambda at: write_table(at / "pets").parent,
    "medmnist": lambda at: write_npz(at / "pets.npz"),
    "keras": lambda at: write_npz(at / "pets.npz", "keras"),
    "plain npz": lambda at: write_npz(at / "pets.npz", "plain"),
    "parquet": lambda at: write_parquet(at / "pets.parquet"),
    "parquet shards": lambda at: _shards(at / "pets"),
    "zip": lambda at: pack(write_folder(at / "pets"), at / "pets.zip"),
    "tar": lambda at: pack(write_folder(at / "pets", 8, ("train", "test")), at / "pets.tar"),
    "tar.gz": lambda at: pack(write_table(at / "pets").parent, at / "pets.tar.gz"),
    "zip of an npz": lambda at: pack(write_npz(at / "pets" / "a.npz").parent, at / "pets.zip"),
}
