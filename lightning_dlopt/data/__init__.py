"""DataModules and loaders with an order of their own that resumes exactly."""

from lightning_dlopt.data.base import ClassificationDataModule
from lightning_dlopt.data.cifar10 import CIFAR10
from lightning_dlopt.data.decoding import DecodingLoader
from lightning_dlopt.data.digits import Digits
from lightning_dlopt.data.fashion_mnist import FashionMNIST
from lightning_dlopt.data.image_folder import ImageFolder
from lightning_dlopt.data.images import ImageDataModule
from lightning_dlopt.data.loader import TensorLoader
from lightning_dlopt.data.mnist import MNIST
from lightning_dlopt.data.order import epoch_batches
from lightning_dlopt.data.resumable import ResumableLoader
from lightning_dlopt.data.text_classification import TextClassification
from lightning_dlopt.data.text_loader import TextLoader

__all__ = [
    "CIFAR10",
    "MNIST",
    "ClassificationDataModule",
    "DecodingLoader",
    "Digits",
    "FashionMNIST",
    "ImageDataModule",
    "ImageFolder",
    "ResumableLoader",
    "TensorLoader",
    "TextClassification",
    "TextLoader",
    "epoch_batches",
]
