"""An assessor in the shape of a metric: tensors in, ratings out, as users of IQA-PyTorch call theirs.

It must not know how a rating comes about. torch is only used where a tensor is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoomiqa.api import as_picture
from zoomiqa.assessors import Assessor, AssessorSpec, create_assessor
from zoomiqa.errors import BackendFailed, OptionInvalid
from zoomiqa.imaging import Picture, picture_from_array


class QualityMetric:
    """Rates pictures like a no-reference metric.

    Args:
        assessor: An assessor, its description, or its name; the embedded default without it.
        options: Of the assessor's backend, where a name is given.

    Example:
        >>> metric = QualityMetric("transformers", model="Ethanliang99/Zoom-IQA-7B")
        >>> metric(torch.rand(2, 3, 480, 640))  # two ratings, 1..5
    """

    lower_better = False
    metric_mode = "NR"
    score_range = "1, 5"

    def __init__(self, assessor: Assessor | AssessorSpec | str | None = None, **options: Any) -> None:
        is_ready = not (assessor is None or isinstance(assessor, AssessorSpec | str))
        self.assessor: Assessor = assessor if is_ready else create_assessor(assessor, **options)  # type: ignore[assignment,arg-type]

    @property
    def metric_name(self) -> str:
        """The assessor's name."""
        return self.assessor.info.name

    def __call__(self, pictures: Any) -> Any:
        """Rate pictures.

        Args:
            pictures: A torch tensor, N×3×H×W or 3×H×W (RGB, float 0..1 or uint8); or one picture or a sequence of them
                as paths, encoded bytes, arrays H×W×3, or `Picture`.

        Returns:
            Ratings 1..5: a float tensor of shape (N,) on the tensor's device, or a numpy array of shape (N,).

        Raises:
            ImageError: a picture cannot be opened, or its values lie outside their range.
            BackendFailed: one could not be rated; a failure is never a number.
        """
        is_tensor = type(pictures).__module__.partition(".")[0] == "torch"
        subjects = _from_tensor(pictures) if is_tensor else [as_picture(item) for item in _as_sequence(pictures)]
        ratings = np.array([self._rate(index, result) for index, result in enumerate(self.assessor.assess(subjects))])
        if not is_tensor:
            return ratings
        import torch

        return torch.as_tensor(ratings, dtype=torch.float32, device=pictures.device)

    def _rate(self, index: int, result: Any) -> float:
        if result.rating is None:
            raise BackendFailed(f"picture {index} could not be rated", result.error["message"], "see that message")
        return float(result.rating)


def _as_sequence(pictures: Any) -> Sequence[Any]:
    if isinstance(pictures, str | bytes | Path | Picture) or (isinstance(pictures, np.ndarray) and pictures.ndim < 4):
        return [pictures]
    return list(pictures)


def _from_tensor(tensor: Any) -> list[Picture]:
    batch = tensor[None] if tensor.ndim == 3 else tensor
    if batch.ndim != 4 or batch.shape[1] != 3:
        raise OptionInvalid("a tensor of pictures has the shape (N, 3, H, W)", tuple(tensor.shape), "reorder its axes")
    values = batch.detach().cpu()
    values = values.float() if values.is_floating_point() else values
    return [picture_from_array(item) for item in values.permute(0, 2, 3, 1).numpy()]
