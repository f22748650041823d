# SPDX-License-Identifier: Apache-2.0
"""Data sets of the Hugging Face hub, read with the package `datasets`; images are decoded on access."""

import functools
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int, UInt8

from vdmkit.data.folder import Channels, Side, cached_file, decode_image, read_image
from vdmkit.data.identity import Fingerprints, scan
from vdmkit.data.sources import AbstractPixels, AbstractSource, Identity, Images, Split, blocks
from vdmkit.errors import DataError
from vdmkit.io import cache_folder, is_own_file, read_json, write_json
from vdmkit.progress import track
from vdmkit.registry import register

if TYPE_CHECKING:
    from datasets import Dataset

_INSTALL = "In a checkout: `uv run --extra huggingface ...`; or `uv pip install datasets`."


@register("data", "huggingface")
class HuggingFace(AbstractSource):
    """Images of a data set of the Hugging Face hub, or of a local folder or Parquet file in the same format.

    Images are decoded on access. The first run also reads all images once to compute their identity, which is kept in
    the cache folder.

    Args:
        path: Name of the data set, such as "ylecun/mnist", a folder of Parquet files or images, or a .parquet file.
        config: Name of the configuration, if there are several.
        revision: Commit, tag or branch on the hub; by default the newest.
        train: The training split; parts of a split are written as "train[:90%]".
        test: The test split.
        image: The column of images: PNG, JPEG or WebP of one size, 8-bit RGB or 8-bit grey.
        label: The column of classes; if empty, the images have no labels.
        shape: (height, width, channels). By default the shape of the first training image. If it is given, a recipe can
            be checked without the data.
    """

    def __init__(
        self,
        *,
        path: str,
        config: str = "",
        revision: str = "",
        train: str = "train",
        test: str = "test",
        image: str = "image",
        label: str = "",
        shape: tuple[Side, Side, Channels] | None = None,
    ) -> None:
        self.path, self.config, self.revision = path, config, revision
        self.splits: dict[Split, str] = {"train": train, "test": test}
        self.image, self.label = image, label
        self._shape = shape

    @property
    def shape(self) -> tuple[int, int, int]:
        return self._shape or _decoded(self._rows("train")[0][self.image], f"{self.path}, image 0", None).shape

    @property
    def levels(self) -> int:
        return 256

    @property
    def classes(self) -> int:
        if not self.label:
            return 0
        named = getattr(self._rows("train").features[self.label], "num_classes", None)
        return named or int(self._labels("train").max()) + 1

    def locate(self) -> str:
        if find_spec("datasets") is None:
            raise DataError(f"data huggingface reads the package datasets, which is not installed. {_INSTALL}")
        return "" if Path(self.path).expanduser().exists() else f"{self.path} from huggingface.co, unless it is kept"

    def load(self, split: Split) -> Images:
        rows, where = self._rows(split), f"{self.path} {self.splits[split]}"
        pixels = _Decoded(rows, self.image, self.shape, where)
        identity, fingerprints = _identified(pixels, _name(self.path, self.splits[split], split), split)
        return Images(pixels, 256, identity, self._labels(split) if self.label else None, fingerprints)

    def _rows(self, split: Split) -> "Dataset":
        self.locate()
        rows = _load(self.path, self.config, self.revision, self.splits[split])
        for column in (self.image, self.label):
            if column and column not in rows.column_names:
                found = ", ".join(rows.column_names)
                raise DataError(f"{self.path}: no column {column!r}, only {found}. Set data.image and data.label.")
        if not len(rows):
            raise DataError(f"{self.path}, split {self.splits[split]!r}: no images. Give at least one.")
        return _undecoded(rows, self.image, self.path)

    def _labels(self, split: Split) -> Int[np.ndarray, " n"]:
        found = np.asarray(self._rows(split)[self.label][:])
        if not np.issubdtype(found.dtype, np.integer) or found.min() < 0:
            raise DataError(f"{self.path}: column {self.label!r} is not of classes 0, 1, .... Set data.label.")
        return found


@functools.lru_cache(maxsize=4)
def _load(path: str, config: str, revision: str, split: str) -> "Dataset":
    from datasets import Dataset, load_dataset

    _check_is_no_format(path)
    local = Path(path).expanduser().absolute()
    try:
        with _quiet():
            if (
                local.suffix == ".parquet" and local.is_file()
            ):  # otherwise load_dataset reports to the hub's download counter
                return Dataset.from_parquet({"train": str(local)}, split=split)  # type: ignore[return-value, arg-type]
            where = str(local) if local.exists() else path
            return load_dataset(where, name=config or None, revision=revision or None, split=split)  # type: ignore[return-value]
    except Exception as error:  # of many types: no network, no such data set, no such split, damaged files
        raise DataError(
            f"{path}, split {split!r}: cannot be loaded ({error}). Set data.path to the name of a data set on "
            "huggingface.co, or to a folder or .parquet file."
        ) from error


def _check_is_no_format(path: str) -> None:
    if path.isidentifier() and find_spec(f"datasets.packaged_modules.{path}"):
        raise DataError(
            f"{path}: a format of the package datasets, not a data set: it would read files of the folder in which you "
            f"are, and pickles among them can run anything. Set data.path to ./{path} for a folder of that name."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences `datasets` and the hub client, which log every retry and repeat the content of the error message."""
    logs = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    shown = [one.level for one in logs]
    for one in logs:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for one, level in zip(logs, shown, strict=True):
            one.setLevel(level)


def _undecoded(rows: "Dataset", column: str, path: str) -> "Dataset":
    from datasets import Image

    if not isinstance(rows.features[column], Image):
        raise DataError(f"{path}: column {column!r} is {rows.features[column]}, and not of images. Set data.image.")
    return rows.cast_column(column, Image(decode=False))


def _decoded(
    found: dict[str, Any] | None, where: str, shape: tuple[int, int, int] | None
) -> UInt8[np.ndarray, "h w c"]:
    data, path = (found["bytes"], found["path"]) if found else (None, None)
    if data is not None:
        return decode_image(data, where, shape)
    if path is None:
        raise DataError(f"{where}: missing. Replace it, or take its row out.")
    return read_image(Path(path), shape)


@dataclass(frozen=True, repr=False)
class _Decoded(AbstractPixels):
    """Images of one column, decoded when they are read."""

    rows: "Dataset"
    column: str
    image: tuple[int, int, int]
    where: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.rows), *self.image)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def read(self, numbers: Int[np.ndarray, " m"]) -> UInt8[np.ndarray, "m h w c"]:
        found = np.empty((len(numbers), *self.image), np.uint8)
        for row, (number, image) in enumerate(zip(numbers, self.rows[numbers.tolist()][self.column], strict=True)):
            found[row] = _decoded(image, f"{self.where}, image {number}", self.image)
        return found


def _identified(pixels: _Decoded, name: str, split: Split) -> tuple[Identity, Fingerprints]:
    """Returns identity and fingerprints, from the cache folder if these images were read before."""
    key = f"{pixels.rows._fingerprint} {pixels.column} {pixels.shape} {name} {split}"
    facts = cache_folder() / f"identity-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    kept = facts.with_suffix(".npy")
    with suppress(OSError, ValueError):
        if is_own_file(facts) and is_own_file(kept):
            return read_json(facts, Identity), np.load(kept)
    with track("auto", f"reading {name}", len(pixels)) as advance:
        found = scan(blocks(pixels), 256, advance)
    identity = Identity(name, split, len(pixels), found.sha256, found.low, found.high, None)
    with cached_file(kept) as part, part.open("wb") as file:
        np.save(file, found.fingerprints)
    write_json(facts, asdict(identity))
    return identity, found.fingerprints


def _name(path: str, given: str, split: Split) -> str:
    """Returns a name for the images: the data set's name, followed by the split unless it has its usual name."""
    name = Path(path).stem or path
    return name if given == split else f"{name}[{given}]"
