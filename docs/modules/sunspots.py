"""The yearly sunspots that statsmodels ships: what pytorch-forecasting's networks take."""

from lightning.pytorch import LightningDataModule
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import EncoderNormalizer
from statsmodels.datasets import sunspots
from torch.utils.data import DataLoader

CONTEXT, HORIZON = 33, 11


class Sunspots(LightningDataModule):
    """Windows of 33 years, to forecast the next 11; years from 1950 on are for validation."""

    def __init__(self, batch_size: int = 16) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Read the data and split it."""
        frame = sunspots.load_pandas().data
        frame["year"] = frame["YEAR"].astype(int)
        frame["series"] = "sun"
        frame["sunspots"] = frame["SUNACTIVITY"].astype("float32")
        self.train = TimeSeriesDataSet(
            frame[frame["year"] < 1950],
            time_idx="year",
            target="sunspots",
            group_ids=["series"],
            time_varying_unknown_reals=["sunspots"],
            min_encoder_length=CONTEXT,
            max_encoder_length=CONTEXT,
            min_prediction_length=HORIZON,
            max_prediction_length=HORIZON,
            target_normalizer=EncoderNormalizer(),
        )
        self.validation = TimeSeriesDataSet.from_dataset(self.train, frame, min_prediction_idx=1950)

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches."""
        return self.train.to_dataloader(train=True, batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader:
        """Return what is validated on."""
        return self.validation.to_dataloader(train=False, batch_size=64)
