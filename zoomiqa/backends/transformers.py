"""Vision-language models through transformers, on one device, with continuous batching.

Any model that `AutoModelForImageTextToText` loads and whose processor has a chat template; Qwen2.5-VL is the family of
the released checkpoint. It must not know rounds, crops or parsing.
"""

from __future__ import annotations

import bisect
import gc
import sys
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoomiqa.backends.base import Capabilities, Session, error_reply
from zoomiqa.backends.processor import load_processor
from zoomiqa.backends.session import answer_all
from zoomiqa.devices import choose_device, choose_dtype, memory_errors
from zoomiqa.errors import BackendFailed, ExtraMissing, OptionInvalid
from zoomiqa.types import Choice, Reply, Request

try:
    import torch
    import transformers as hf
    from safetensors import SafetensorError

    from zoomiqa.backends.decoding import Decoder, Row
except ImportError as missing:
    raise ExtraMissing(
        "vision-language models need torch and transformers", missing.name, 'pip install "zoomiqa[vlm]"'
    ) from missing

DTYPES = ("auto", "bf16", "fp16", "fp32", "int8", "int4")
ATTENTIONS = {"auto": "sdpa", "sdpa": "sdpa", "flash": "flash_attention_2", "eager": "eager"}

_PREFILL_TOKENS = 8192
"""Prompt tokens read in one forward pass, padding included; more would only raise the peak of memory."""

_MOST_PADDING = 1.5
"""Longest over shortest prompt of one forward pass: beyond it, reading them one by one is less work."""

_TEXT_TAIL = 8
"""Tokens, beyond the characters of a stop string, in which it is looked for after each token."""


class TransformersBackend:
    """Answers with a vision-language model that runs here.

    Args:
        model: Hub id (`owner/name`) or folder.
        revision: Branch, tag or commit on the hub.
        device: `auto`, `cuda`, `cuda:1`, `mps` or `cpu`.
        dtype: `auto` (bf16 on CUDA where there is bf16, else fp16; fp32 elsewhere), `bf16`, `fp16`, `fp32`; `int8` and
            `int4` quantise the weights with bitsandbytes while loading.
        attention: `auto` (PyTorch's fused attention), `sdpa`, `flash` (needs flash-attn) or `eager`.
        max_pixels: Pictures are shrunk to so many pixels before the model sees them; `None` is the model's own limit.
        batch_size: Replies under way at once; `None` chooses by the device's memory.

    Raises:
        OptionInvalid: an option out of range; no such model, or one that is no chat model for pictures.
        ExtraMissing: a part that an option needs is not installed.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        max_pixels: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        _check_word("dtype", dtype, DTYPES)
        _check_word("attention", attention, tuple(ATTENTIONS))
        for name, number in (("max_pixels", max_pixels), ("batch_size", batch_size)):
            if number is not None and number < 1:
                raise OptionInvalid(f"{name} must be at least 1", number, "give a positive number")
        self.model_id, self.revision = str(model), revision
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device.value)
        self.attention = ATTENTIONS[attention]
        self.slots = _choose_slots(batch_size, self.device.value)
        self._processor = load_processor(self.model_id, revision, max_pixels)
        self._tokenizer = self._processor.tokenizer
        self._model: Any = None
        self._model_lock = threading.Lock()
        self._processor_lock = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            name="transformers",
            version=f"{self.model_id}@{self.revision or 'main'}, {self.dtype.value}",
            description=f"The vision-language model {self.model_id}, run with transformers {hf.__version__}.",
            batch_size=int(self.slots.value),
        )

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        return answer_all(self.open_session(), requests)

    def open_session(self, batch_size: int | None = None) -> Session:
        return _DecodingSession(self, int(self.slots.value) if batch_size is None else batch_size)

    def stream(self, request: Request) -> Generator[str, None, Reply]:
        session = _DecodingSession(self, 1)
        try:
            session.submit(0, request)
            shown = 0
            while not (done := session.collect_some()):
                for row in session.rows:
                    text = self.text_of(row, finished=False)
                    if len(text) > shown:
                        yield text[shown:]
                        shown = len(text)
        finally:
            session.close()
        reply = done[0][1]
        if reply.text[shown:]:
            yield reply.text[shown:]
        return reply

    def load(self) -> Any:
        """The model, read into memory on first use.

        Raises:
            OptionInvalid: its weights cannot be read.
        """
        with self._model_lock:
            if self._model is None:
                self._model = self._read_model()
            return self._model

    def unload(self) -> None:
        """Give the model's memory back; the next request loads it again."""
        with self._model_lock:
            self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def prepare(self, ticket: int, request: Request) -> Row:
        """Render and tokenise a request. Safe to call from several threads.

        Raises:
            BackendFailed: its subject is no picture, the processor refuses it, or it is too long for the model.
        """
        chat = self._processor.chat_of(request)
        try:
            with self._processor_lock:  # tokenizers are not safe for two threads at once
                text = self._processor.prompt(chat.messages)
                # A list of pictures per text; none at all where the chat shows none.
                pictures = [[_as_pil(image) for image in chat.images]] if chat.images else None
                inputs = dict(self._processor.processor(text=[text], images=pictures, return_tensors="pt"))
        except (ValueError, TypeError) as error:
            raise BackendFailed("the model's processor refused the request", error, "see what it says") from error
        row = Row(ticket, inputs, request.sampling)
        longest = self._processor.longest_context
        if longest is not None and row.prompt_length + request.sampling.max_new_tokens > longest:
            raise BackendFailed(
                f"the prompt and its reply may take {longest} tokens together",
                f"{row.prompt_length} + {request.sampling.max_new_tokens}",
                "lower max_pixels or max_new_tokens",
            )
        return row

    def decoder(self, slots: int) -> Decoder:
        """A loop over the loaded model with room for `slots` rows."""
        model = self.load()
        ends = _end_tokens(model, self._tokenizer)
        special = set(self._processor.special_tokens.values())
        vocabulary = int(model.get_output_embeddings().weight.shape[0])
        # Ids beyond the tokenizer's are padding of the weights; they have no text.
        suppressed = (special | set(range(len(self._tokenizer), vocabulary))) - ends
        return Decoder(model, slots, end_tokens=ends, suppressed=sorted(suppressed), has_ended=self._has_stopped)

    def text_of(self, row: Row, *, finished: bool = True) -> str:
        """A row's text; while it is being written, without a last character that is not whole yet."""
        text: str = self._tokenizer.decode(row.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if not finished:
            return text.rstrip("\ufffd")
        ends = [text.find(stop) + len(stop) for stop in row.sampling.stop if stop in text]
        return text[: min(ends)] if ends else text

    def _has_stopped(self, row: Row) -> bool:
        if not row.sampling.stop:
            return False
        longest = max(map(len, row.sampling.stop))
        tail = self._tokenizer.decode(row.tokens[-(longest + _TEXT_TAIL) :])
        return any(stop in tail for stop in row.sampling.stop)

    def _read_model(self) -> Any:
        arguments: dict[str, Any] = {"attn_implementation": self.attention, "revision": self.revision}
        if self.dtype.value in ("int8", "int4"):
            arguments["quantization_config"] = _quantization(self.dtype.value)
            arguments["device_map"] = {"": self.device.value}
            arguments["dtype"] = "auto"
        else:
            arguments["dtype"] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[
                self.dtype.value
            ]
        if not sys.stderr.isatty():
            hf.utils.logging.disable_progress_bar()
        try:
            with memory_errors():
                model = hf.AutoModelForImageTextToText.from_pretrained(self.model_id, **arguments)
                return (model if "device_map" in arguments else model.to(self.device.value)).eval()
        except MemoryError as error:
            raise OptionInvalid(
                "the model does not fit into memory", self.model_id, "use dtype int8 or int4, or a smaller model"
            ) from error
        except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
            raise OptionInvalid("the model's weights cannot be read", self.model_id, _first_line(error)) from error


@dataclass(order=True, slots=True)
class _Waiting:
    """A request that has no slot yet. Later looks come first, then earlier requests."""

    priority: tuple[int, int]
    request: Request = field(compare=False)
    prepared: Future[Row] = field(compare=False)


class _DecodingSession:
    """Requests under way: being prepared in threads, waiting for a slot, or being written."""

    def __init__(self, backend: TransformersBackend, slots: int) -> None:
        self._backend, self._slots = backend, slots
        self._ahead = 1 + slots // 4
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="prepare")
        self._waiting: list[_Waiting] = []
        self._writing: dict[int, tuple[Request, float]] = {}
        self._done: list[tuple[int, Reply]] = []
        self._decoder: Decoder | None = None

    @property
    def room(self) -> int:
        return self._slots + self._ahead - len(self._waiting) - len(self._writing)

    @property
    def rows(self) -> list[Row]:
        """Rows being written."""
        return self._decoder.rows if self._decoder else []

    def submit(self, ticket: int, request: Request) -> None:
        prepared = self._pool.submit(self._backend.prepare, ticket, request)
        bisect.insort(self._waiting, _Waiting((-request.round_index, ticket), request, prepared))

    def collect(self) -> list[tuple[int, Reply]]:
        while self._waiting or self._writing:
            if done := self.collect_some():
                return done
        return []

    def collect_some(self) -> list[tuple[int, Reply]]:
        """Go one step on: give slots to what is ready, write one token of every row; what is done with that."""
        try:
            if self._decoder is None:
                self._decoder = self._backend.decoder(self._slots)
            with memory_errors():
                self._admit(self._decoder)
                if self._decoder.rows:
                    self._finish(self._decoder.step())
        except MemoryError:
            self._begin_anew()
        except Exception as error:
            self._fail_all(error)
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._waiting.clear()
        self._writing.clear()
        self._decoder = None

    def _admit(self, decoder: Decoder) -> None:
        while decoder.free and (ready := self._take_ready(decoder.free, must_wait=not decoder.rows)):
            for group in _groups(ready):
                try:
                    self._finish(decoder.admit(group))
                except ValueError:  # pictures of unlike shapes: one prompt at a time
                    for row in group:
                        self._finish(decoder.admit([row]))

    def _take_ready(self, most: int, *, must_wait: bool) -> list[Row]:
        """Prepared rows, at most so many, in order of their claim; waits for one where nothing else is to be done."""
        if must_wait and self._waiting and not any(item.prepared.done() for item in self._waiting):
            wait([item.prepared for item in self._waiting], return_when=FIRST_COMPLETED)
        rows: list[Row] = []
        for item in [item for item in self._waiting if item.prepared.done()]:
            if len(rows) == most:
                break
            self._waiting.remove(item)
            ticket = item.priority[1]
            try:
                rows.append(item.prepared.result())
                self._writing[ticket] = (item.request, time.perf_counter())
            except Exception as error:
                self._done.append((ticket, error_reply(error)))
        return rows

    def _finish(self, rows: Sequence[Row]) -> None:
        for row in rows:
            _, since = self._writing.pop(row.ticket)
            reply = Reply(
                text=self._backend.text_of(row),
                finish_reason="length" if row.finish_reason == "length" else "stop",
                tokens_in=row.prompt_length,
                tokens_out=len(row.tokens),
                seconds=time.perf_counter() - since,
            )
            self._done.append((row.ticket, reply))

    def _begin_anew(self) -> None:
        """Out of memory: what was being written goes back to the queue, and from now on half as many share the device.

        A move of the buffer may have stopped half-way, so none of it is kept.
        """
        under_way = len(self._writing)
        self._decoder = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if under_way <= 1 or self._slots == 1:
            full = BackendFailed(
                "the device's memory does not hold one reply", None, "lower max_pixels, or use dtype int8 or int4"
            )
            self._fail_writing(full)
            return
        self._slots = max(1, min(self._slots, under_way) // 2)
        for ticket, (request, _) in list(self._writing.items()):
            self.submit(ticket, request)
        self._writing.clear()

    def _fail_all(self, error: Exception) -> None:
        """The model failed: everything being written fails with it, and the next requests begin with a clean buffer."""
        if self._decoder is None:  # it could not be loaded at all: nothing that waits will fare better
            self._done += [(item.priority[1], error_reply(error)) for item in self._waiting]
            self._waiting.clear()
        self._decoder = None
        self._fail_writing(error)

    def _fail_writing(self, error: Exception) -> None:
        self._done += [(ticket, error_reply(error)) for ticket in self._writing]
        self._writing.clear()


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of like length together, none of the groups beyond what one forward pass should hold."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: row.prompt_length):
        length = row.prompt_length
        group = groups[-1] if groups else []
        if group and length * (len(group) + 1) <= _PREFILL_TOKENS and length <= _MOST_PADDING * group[0].prompt_length:
            group.append(row)
        else:
            groups.append([row])
    return groups


def _as_pil(pixels: Any) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a text: the model's own, and the tokenizer's."""
    ids = model.generation_config.eos_token_id
    ids = ids if isinstance(ids, list | tuple) else [ids]
    return frozenset(int(token) for token in (*ids, tokenizer.eos_token_id) if token is not None)


def _choose_slots(requested: int | None, device: str) -> Choice:
    """Replies under way at once, with the reason."""
    if requested is not None:
        return Choice(str(requested), "asked for")
    if not device.startswith("cuda"):
        return Choice("4", f"{device} gains little from more")
    memory = torch.cuda.get_device_properties(torch.device(device)).total_memory / 2**30
    # A reply of the 7B model holds about 0.25 GiB of keys and values at 4,500 tokens, its weights 16 GiB.
    slots = int(min(64, max(2, (memory - 18) / 0.4)))
    return Choice(str(slots), f"{memory:.0f} GiB of memory")


def _quantization(dtype: str) -> Any:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ExtraMissing(
            "quantised weights need bitsandbytes", error.name, 'pip install "zoomiqa[quantized]"'
        ) from error
    if dtype == "int8":
        return hf.BitsAndBytesConfig(load_in_8bit=True)
    return hf.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _check_word(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise OptionInvalid(f"{name} must be one of {', '.join(known)}", value, "choose one of them")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
