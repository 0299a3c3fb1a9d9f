"""MNIST: handwritten digits."""

from torchvision import datasets  # type: ignore[import-untyped]

from lightning_dlopt.data.idx_images import IdxImages


class MNIST(IdxImages):
    """60000 training and 10000 test images of handwritten digits, ``(1, 28, 28)``, ten classes.

    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner: Gradient-Based Learning Applied to Document
    Recognition, 1998. Its four IDX files, with or without ``.gz``, are looked for in ``data_dir``
    and in ``data_dir/MNIST/raw``, and otherwise downloaded by ``prepare_data``.

    Args:
        data_dir: Folder of the files, and where a download goes.
        **kwargs: ``batch_size=32``, ``eval_batch_size=512``, ``validation=0.1``, ``split_seed=0``,
            ``seed=None``, ``drop_last=False``, ``normalize=True``, ``train_transform=None``,
            ``num_workers=0``; see
            :class:`~lightning_dlopt.data.images.ImageDataModule`.

    Raises:
        DataError: if the files can't be found, don't fit together or are damaged.
    """

    classes = tuple("0123456789")
    mean = (0.1307,)
    std = (0.3081,)
    downloader = datasets.MNIST
