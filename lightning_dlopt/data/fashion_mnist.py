"""Fashion-MNIST: pictures of clothing."""

from torchvision import datasets  # type: ignore[import-untyped]

from lightning_dlopt.data.idx_images import IdxImages


class FashionMNIST(IdxImages):
    """60000 training and 10000 test images of clothing, ``(1, 28, 28)``, ten classes.

    H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms, 2017, arXiv:1708.07747. Its four IDX files, with or without ``.gz``, are
    looked for in ``data_dir``, in ``data_dir/FashionMNIST/raw`` and where Debian's package
    ``dataset-fashion-mnist`` puts them, and otherwise downloaded by ``prepare_data``.

    Args:
        data_dir: Folder of the files, and where a download goes.
        **kwargs: ``batch_size=32``, ``eval_batch_size=512``, ``validation=0.1``, ``split_seed=0``,
            ``seed=None``, ``drop_last=False``, ``normalize=True``, ``train_transform=None``,
            ``num_workers=0``; see
            :class:`~lightning_dlopt.data.images.ImageDataModule`.

    Raises:
        DataError: if the files can't be found, don't fit together or are damaged.
    """

    classes = tuple(datasets.FashionMNIST.classes)
    mean = (0.2860,)
    std = (0.3530,)
    system_dirs = ("/usr/share/datasets/fashion-mnist",)
    downloader = datasets.FashionMNIST
    advice = "run apt-get install dataset-fashion-mnist, or "
