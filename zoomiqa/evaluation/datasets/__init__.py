"""Public data sets, from the authors' downloads to annotation files. It must not open a picture or an archive."""

from zoomiqa.evaluation.datasets.prepare import Prepared, prepare_dataset
from zoomiqa.evaluation.datasets.specs import DATASETS, DatasetSpec, find_dataset

__all__ = ["DATASETS", "DatasetSpec", "Prepared", "find_dataset", "prepare_dataset"]
