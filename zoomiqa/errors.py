"""The one error tree of the project. It must not know any room: every room raises from here.

    ZoomIQAError
    ├── ImageError            ZIQ-1xx   a picture cannot be opened or used
    │   ├── ImageUnreadable       101   not a picture, empty, or damaged beyond its header
    │   ├── ImageTooLarge         102   more pixels, bytes or side length than the limits allow
    │   ├── ImageFormatRefused    103   a format that this door does not open
    │   ├── ImageTruncated        104   the file ends before the picture does
    │   ├── ImageValuesInvalid    105   NaN or infinity, or a sample type without a defined range
    │   ├── ImageShapeRefused     106   aspect ratio outside the limits
    │   ├── ImageMetadataTooLarge 107   ICC, EXIF, XMP or text beyond the limit
    │   └── ImageNotFound         108   no file at that path
    ├── ProtocolError         ZIQ-2xx   a reply or a prompt set breaks the protocol
    │   ├── ReplyUnusable         201   a reply holds no usable rating
    │   └── PromptSetInvalid      202   a prompt file lacks a part or is malformed
    ├── RecordError           ZIQ-3xx   a record file cannot be continued or read
    │   ├── RecordSettingsChanged 301   resume with other settings than those of the file
    │   ├── RecordCorrupt         302   a line that is not the last cannot be read
    │   └── RecordLocked          303   another process writes the same file
    ├── BackendError          ZIQ-4xx   a backend failed to answer
    │   ├── BackendFailed         401   the backend raised or answered with the wrong count
    │   ├── BackendUnknown        402   no backend, assessor, restorer or metric of that name
    │   ├── ServerUnreachable     403   no connection to a server, or no reply in time
    │   ├── ServerRefused         404   a server wants a (valid) key, or forbids the use
    │   ├── ModelUnknown          405   a server has no such model, or nothing at that address
    │   ├── RequestRejected       406   a server does not take the request, or withholds the reply
    │   └── ServerFailed          407   a server is too busy or broken, also after further attempts
    ├── UsageError            ZIQ-5xx   the caller asked for something impossible
    │   ├── OptionInvalid         501   an option outside its range
    │   └── ExtraMissing          502   an optional part is not installed
    ├── OutputError           ZIQ-6xx   a result cannot be written
    │   ├── OutputWouldOverwrite  601   the target is an input, or exists and overwriting is off
    │   └── OutputFailed          602   the target folder is missing, read-only, or full
    └── WeightsError          ZIQ-7xx   a model's weights cannot be used
        ├── WeightsMissing        701   no such file, or the hub does not give it
        ├── WeightsRefused        702   a pickle without permission, or one that holds more than tensors
        ├── WeightsDamaged        703   a file cut short, or one that holds no weights (a web page, for example)
        └── WeightsUnsuitable     704   weights of another model than the one that is needed

Each message says what is wrong, the value, and what to do. It never carries a memory address, and a caller that
serves strangers sends `code` and `summary`, not `str(error)`.
"""

from __future__ import annotations

from typing import ClassVar


class ZoomIQAError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        what: What is wrong, without a full stop.
        value: The offending value; shown with `repr`-like care and cut to 120 characters. `None` leaves it out.
        fix: What the reader can do about it.
    """

    code: ClassVar[str] = "ZIQ-000"
    summary: ClassVar[str] = "an error of this project"

    def __init__(self, what: str, value: object = None, fix: str = "") -> None:
        self.what = what
        self.value = value
        self.fix = fix
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        text = self.what
        if self.value is not None:
            shown = str(self.value)
            text += f", got {shown if len(shown) <= 120 else shown[:117] + '...'}"
        return f"{text}; {self.fix}" if self.fix else text

    def __reduce__(self) -> tuple[type[ZoomIQAError], tuple[str, object, str]]:
        """Survive pickling between worker processes; the default would pass the finished sentence as `what`."""
        return (type(self), (self.what, self.value, self.fix))

    def to_dict(self) -> dict[str, str]:
        """The form a record stores: `code`, `type` and `message`."""
        return {"code": self.code, "type": type(self).__name__, "message": str(self)}


class ImageError(ZoomIQAError):
    code, summary = "ZIQ-100", "the picture cannot be used"


class ImageUnreadable(ImageError):
    code, summary = "ZIQ-101", "the file is not a readable picture"


class ImageTooLarge(ImageError):
    code, summary = "ZIQ-102", "the picture is larger than the limits allow"


class ImageFormatRefused(ImageError):
    code, summary = "ZIQ-103", "the picture's format is not accepted"


class ImageTruncated(ImageError):
    code, summary = "ZIQ-104", "the picture's file is cut short"


class ImageValuesInvalid(ImageError):
    code, summary = "ZIQ-105", "the picture holds values without a defined brightness"


class ImageShapeRefused(ImageError):
    code, summary = "ZIQ-106", "the picture's aspect ratio is outside the limits"


class ImageMetadataTooLarge(ImageError):
    code, summary = "ZIQ-107", "the picture's metadata is larger than the limits allow"


class ImageNotFound(ImageError):
    code, summary = "ZIQ-108", "there is no picture at that path"


class ProtocolError(ZoomIQAError):
    code, summary = "ZIQ-200", "the assessment protocol was broken"


class ReplyUnusable(ProtocolError):
    code, summary = "ZIQ-201", "the reply holds no usable rating"


class PromptSetInvalid(ProtocolError):
    code, summary = "ZIQ-202", "the prompt set cannot be used"


class RecordError(ZoomIQAError):
    code, summary = "ZIQ-300", "the record file cannot be used"


class RecordSettingsChanged(RecordError):
    code, summary = "ZIQ-301", "the record file was made with other settings"


class RecordCorrupt(RecordError):
    code, summary = "ZIQ-302", "the record file is damaged"


class RecordLocked(RecordError):
    code, summary = "ZIQ-303", "another process is writing the record file"


class BackendError(ZoomIQAError):
    code, summary = "ZIQ-400", "the backend failed"


class BackendFailed(BackendError):
    code, summary = "ZIQ-401", "the backend gave no usable answer"


class BackendUnknown(BackendError):
    code, summary = "ZIQ-402", "there is no plug-in of that name"


class ServerUnreachable(BackendError):
    code, summary = "ZIQ-403", "the model server cannot be reached"


class ServerRefused(BackendError):
    code, summary = "ZIQ-404", "the model server refuses access"


class ModelUnknown(BackendError):
    code, summary = "ZIQ-405", "the model server has no such model"


class RequestRejected(BackendError):
    code, summary = "ZIQ-406", "the model server does not take the request"


class ServerFailed(BackendError):
    code, summary = "ZIQ-407", "the model server failed or is too busy"


class UsageError(ZoomIQAError):
    code, summary = "ZIQ-500", "the request cannot be carried out"


class OptionInvalid(UsageError):
    code, summary = "ZIQ-501", "an option is outside its range"


class ExtraMissing(UsageError):
    code, summary = "ZIQ-502", "an optional part is not installed"


class OutputError(ZoomIQAError):
    code, summary = "ZIQ-600", "the result cannot be written"


class OutputWouldOverwrite(OutputError):
    code, summary = "ZIQ-601", "the result would overwrite an existing file"


class OutputFailed(OutputError):
    code, summary = "ZIQ-602", "the result could not be written"


class WeightsError(ZoomIQAError):
    code, summary = "ZIQ-700", "the model's weights cannot be used"


class WeightsMissing(WeightsError):
    code, summary = "ZIQ-701", "the model's weights were not found"


class WeightsRefused(WeightsError):
    code, summary = "ZIQ-702", "the weights are in a form that could run code"


class WeightsDamaged(WeightsError):
    code, summary = "ZIQ-703", "the weights file is damaged or holds no weights"


class WeightsUnsuitable(WeightsError):
    code, summary = "ZIQ-704", "the weights belong to another model"
