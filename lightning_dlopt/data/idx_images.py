"""What MNIST and Fashion-MNIST share: four IDX files and where to look for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_dlopt.core.errors import DataError, one_line
from lightning_dlopt.data.base import Samples, check_path
from lightning_dlopt.data.idx import read_idx
from lightning_dlopt.data.images import ImageDataModule, check_samples

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class IdxImages(ImageDataModule):
    """Base of the data sets of four IDX files; a subclass names its sources.

    The files, each with or without ``.gz``, are looked for in ``data_dir``, in
    ``data_dir/<class name>/raw`` (torchvision's place) and in the ``system_dirs``; when no place
    has them, ``prepare_data`` downloads them into ``data_dir`` through torchvision. A place under
    ``data_dir`` that has some of the four but not all is an error.
    """

    input_shape = (1, 28, 28)
    system_dirs: tuple[str, ...] = ()
    downloader: Callable[..., Any]
    advice: str = ""

    def __init__(self, data_dir: str | Path = "data", *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_dir = check_path(self, "data_dir", data_dir)

    def prepare_data(self) -> None:
        """Download the files into ``data_dir`` unless some place has them already.

        Raises:
            DataError: if that fails, or a place has only some of the four files.
        """
        if self.find_files() is not None:
            return
        try:
            self.downloader(self.data_dir, download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{self._not_found()} and the download failed ({one_line(error)}): {self._help()}"
            ) from error

    def find_files(self) -> dict[str, Path] | None:
        """Return the four files by their name without ``.gz``, or None if no place has them.

        Raises:
            DataError: if ``data_dir`` has only some of them, naming those that are missing.
        """
        for place in self._places():
            found = {}
            for name in (name for pair in _FILES.values() for name in pair):
                for path in (place / name, place / f"{name}.gz"):
                    if path.is_file():
                        found[name] = path
                        break
            missing = [name for pair in _FILES.values() for name in pair if name not in found]
            if not missing:
                return found
            if found:
                raise DataError(
                    f"{place}: {', '.join(missing)} missing (with or without .gz): add what is "
                    f"missing or delete the other files"
                )
        return None

    def read_sets(self) -> dict[str, Samples]:
        """Read the four files and check that they fit together."""
        files = self.find_files()
        if files is None:
            raise DataError(
                f"{self._not_found()}: call prepare_data() to download it, or {self._help()}"
            )
        sets: dict[str, Samples] = {}
        for part, (images_name, labels_name) in _FILES.items():
            images, labels = read_idx(files[images_name]), read_idx(files[labels_name])
            for path, values, shape in (
                (files[images_name], images, self.input_shape[1:]),
                (files[labels_name], labels, ()),
            ):
                if values.shape[1:] != shape or values.dim() == 0:
                    raise DataError(
                        f"{path}: values of shape {tuple(values.shape)} instead of "
                        f"{('N', *shape)}: is it the file of another data set?".replace("'", "")
                    )
            where = str(files[labels_name])
            sets[part] = check_samples(where, images.unsqueeze(1), labels.long(), self.num_classes)
        return sets

    def _places(self) -> list[Path]:
        given = Path(self.data_dir)
        own = given / self.downloader.__name__ / "raw"
        return [given, own, *map(Path, self.system_dirs)]

    def _not_found(self) -> str:
        places = ", ".join(map(str, self._places()))
        return f"{type(self).__name__}: the four IDX files are in none of {places}"

    def _help(self) -> str:
        return f"{self.advice}put the files into {self.data_dir} yourself"
