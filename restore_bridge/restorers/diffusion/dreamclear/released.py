"""Names and shapes of the released checkpoint, as one compact table, and what each tensor is called here.

Source: github.com/shallowdream204/DreamClear, commit fbe0938c (Apache-2.0), from the model that its code builds: 2413
names, of which 2411 are parameters (2,211,876,212 numbers) and two are buffers (5,210,112 numbers). The released file
itself was not at hand.

It must not know torch: names and shapes are plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

PARAMETERS, PARAMETER_TENSORS, NAMES = 2_211_876_212, 2411, 2413
"""Of the released model at full size; names include its two buffers."""

POSITIONS = "base_model.pos_embed"
"""The one tensor without a counterpart: positions follow from the sizes, and the original drops it as well."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What decides the shapes. The defaults are those of the released model."""

    width: int = 1152
    """Of a token."""

    inner: int = 4608
    """Width inside a feed-forward part."""

    blocks: int = 28
    control_blocks: int = 28
    """Of each branch."""

    experts: int = 3
    text_width: int = 4096
    text_length: int = 120
    """Tokens of the null embedding."""

    channels: int = 4
    out_channels: int = 8
    patch: int = 2
    """Side of a patch, in latent pixels."""

    grid: int = 64
    """Side of the latent that positions are stored for, in patches."""


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor, or a weight with its bias."""

    there: str
    """Name in the released checkpoint, without `.weight`."""

    here: tuple[str, ...]
    """Name in `DreamClearTransformer2DModel`; of several, each holds an equal part along the first axis."""

    shape: Callable[[Sizes], Shape]
    is_layer: bool = True
    """Whether it is a weight with a bias of its length, or a bare tensor."""

    def within(self, there: str, here: str) -> Row:
        """The same inside a part that is called `there` and `here`."""
        return Row(f"{there}.{self.there}", tuple(f"{here}.{name}" for name in self.here), self.shape, self.is_layer)


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the checkpoint."""

    there: str
    here: tuple[str, ...]
    shape: Shape


def _same(name: str, shape: Callable[[Sizes], Shape]) -> Row:
    return Row(name, (name,), shape)


def _square(sizes: Sizes) -> Shape:
    return (sizes.width, sizes.width)


def _patches(sizes: Sizes) -> Shape:
    return (sizes.width, sizes.channels, sizes.patch, sizes.patch)


def _size_row(part: str, name: str, shape: Callable[[Sizes], Shape]) -> Row:
    return Row(part, (f"adaln_single.emb.{name}",), shape)


BLOCK = (
    Row("scale_shift_table", ("scale_shift_table",), lambda s: (6, s.width), is_layer=False),
    Row("attn.qkv", ("attn1.to_q", "attn1.to_k", "attn1.to_v"), lambda s: (3 * s.width, s.width)),
    Row("attn.proj", ("attn1.to_out.0",), _square),
    Row("cross_attn.q_linear", ("attn2.to_q",), _square),
    Row("cross_attn.kv_linear", ("attn2.to_k", "attn2.to_v"), lambda s: (2 * s.width, s.width)),
    Row("cross_attn.proj", ("attn2.to_out.0",), _square),
    Row("mlp.fc1", ("ff.net.0.proj",), lambda s: (s.inner, s.width)),
    Row("mlp.fc2", ("ff.net.2",), lambda s: (s.width, s.inner)),
)
"""A block of the denoiser, and of a branch."""

MODULATOR = (
    _same("shared_proj", lambda s: (s.width // 2, s.width)),
    _same("proj_mul", lambda s: (s.width, s.width // 2)),
    _same("proj_add", lambda s: (s.width, s.width // 2)),
)
REFERENCE = (
    *(_same(name, _square) for name in ("q_linear", "proj", "de_proj")),
    _same("kv_linear", lambda s: (2 * s.width, s.width)),
    *(_same(name, lambda s: (s.width,)) for name in ("norm1", "norm2")),
)
GATE = (
    _same("gate.0", lambda s: (8 * s.experts, s.width)),
    _same("gate.2", lambda s: (s.experts, 8 * s.experts)),
)
BASE = (
    Row("x_embedder.proj", ("patch_embed.proj",), _patches),
    _size_row("t_embedder.mlp.0", "timestep_embedder.linear_1", lambda s: (s.width, 256)),
    _size_row("t_embedder.mlp.2", "timestep_embedder.linear_2", _square),
    _size_row("csize_embedder.mlp.0", "resolution_embedder.linear_1", lambda s: (s.width // 3, 256)),
    _size_row("csize_embedder.mlp.2", "resolution_embedder.linear_2", lambda s: (s.width // 3, s.width // 3)),
    _size_row("ar_embedder.mlp.0", "aspect_ratio_embedder.linear_1", lambda s: (s.width // 3, 256)),
    _size_row("ar_embedder.mlp.2", "aspect_ratio_embedder.linear_2", lambda s: (s.width // 3, s.width // 3)),
    Row("t_block.1", ("adaln_single.linear",), lambda s: (6 * s.width, s.width)),
    Row("y_embedder.y_embedding", ("null_embedding",), lambda s: (s.text_length, s.text_width), is_layer=False),
    Row("y_embedder.y_proj.fc1", ("caption_projection.linear_1",), lambda s: (s.width, s.text_width)),
    Row("y_embedder.y_proj.fc2", ("caption_projection.linear_2",), _square),
    Row("final_layer.scale_shift_table", ("scale_shift_table",), lambda s: (2, s.width), is_layer=False),
    Row("final_layer.linear", ("proj_out",), lambda s: (s.patch**2 * s.out_channels, s.width)),
)
"""What PixArt-α has beside its blocks."""


def table(sizes: Sizes) -> Iterator[Entry]:
    """Every tensor of a checkpoint of these sizes but `POSITIONS`."""
    rows = [Row(f"base_model.{row.there}", row.here, row.shape, row.is_layer) for row in BASE]
    for number in range(sizes.blocks):
        rows += [row.within(f"base_model.blocks.{number}", f"transformer_blocks.{number}") for row in BLOCK]
    for side in ("lq", "pre"):
        rows.append(Row(f"x_embedder_{side}.proj", (f"control_{side}.patch_embed.proj",), _patches))
        rows.append(Row(f"c_embedder_{side}.proj", (f"control_{side}.condition_embed.proj",), _patches))
    for number in range(sizes.control_blocks):
        for side in ("lq", "pre"):
            there, here = f"controlnet_{side}.{number}.copied_block", f"control_{side}.blocks.{number}"
            rows += [row.within(there, here) for row in BLOCK]
        rows += [row.within(f"cross_de.{number}", f"reference.{number}") for row in REFERENCE]
        rows += [row.within(f"am_pre.{number}", f"modulators_pre.{number}") for row in MODULATOR]
        rows += [row.within(f"am_lq.{number}", f"modulators_lq.{number}") for row in GATE]
        for expert in range(sizes.experts):
            inside = f"{number}.experts.{expert}"
            rows += [row.within(f"am_lq.{inside}", f"modulators_lq.{inside}") for row in MODULATOR]
    for row in rows:
        yield from entries(row, sizes)


def entries(row: Row, sizes: Sizes) -> Iterator[Entry]:
    """The one tensor of a row, or its two."""
    shape = row.shape(sizes)
    if not row.is_layer:
        yield Entry(row.there, row.here, shape)
        return
    for name, form in (("weight", shape), ("bias", shape[:1])):
        yield Entry(f"{row.there}.{name}", tuple(f"{part}.{name}" for part in row.here), form)


def positions_shape(sizes: Sizes) -> Shape:
    """Of `POSITIONS`."""
    return (1, sizes.grid**2, sizes.width)
