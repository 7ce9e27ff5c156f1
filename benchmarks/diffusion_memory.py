"""Parameters and activations of the diffusion restorers' networks, counted without weights, memory or a GPU.

    python benchmarks/diffusion_memory.py

The networks are built in their published configurations and one step runs, all on fake tensors: each has its shape and
number format but no content. Printed are parameters (millions) and the peak of live
activations, for each latent pixel of one side of the guidance (denoisers, 16-bit numbers, a window of 1024 pixels) and
for each decoded pixel (VAE, 32-bit numbers). These are the figures of `Footprint` in the restorers' files. Left out:
workspaces of convolution kernels and what an allocator wastes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
FLUX = {
    "in_channels": 64,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
}


class Peak(TorchDispatchMode):
    """Follows the bytes of storages that are alive."""

    def __init__(self, networks: tuple[Any, ...]) -> None:
        super().__init__()
        self.live = self.peak = 0
        weights = (item for network in networks for item in (*network.parameters(), *network.buffers()))
        self.known = {item.untyped_storage()._cdata for item in weights}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: Any) -> None:
        key = storage._cdata
        if key in self.known:
            return
        size = storage.nbytes()
        self.known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def millions(network: Any) -> float:
    return float(sum(parameter.numel() for parameter in network.parameters()) / 1e6)


def peak_bytes(run: Callable[[], Any], networks: tuple[Any, ...]) -> int:
    """Of live activations while `run` goes; weights of `networks` are left out."""
    with torch.no_grad(), Peak(networks) as peak:
        run()
    return peak.peak


def report(
    name: str, network: Any, run: Callable[[], Any] | None = None, units: int = 1, unit: str = "", *others: Any
) -> None:
    """One line: parameters of `network`, and what a `run` of it (and `others`) keeps alive."""
    line = f"{name:<28} {millions(network):9.1f} M"
    if run is not None:
        line += f"   {peak_bytes(run, (network, *others)) / units:10,.0f} bytes per {unit}"
    print(line)


def main() -> None:
    from diffusers import (
        AutoencoderKL,
        ControlNetModel,
        ControlNetUnionModel,
        FluxTransformer2DModel,
        PixArtTransformer2DModel,
        QwenImageTransformer2DModel,
        UNet2DConditionModel,
    )

    latents, pair = 128 * 128, 2
    with FakeTensorMode():
        torch.set_default_dtype(torch.bfloat16)
        unet = UNet2DConditionModel(up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), **SDXL)
        control = ControlNetModel(**SDXL)
        x = torch.empty(pair, 4, 128, 128)
        words = torch.empty(pair, 154, 2048)
        more = {"text_embeds": torch.empty(pair, 1280), "time_ids": torch.empty(pair, 6)}
        moment = torch.tensor(500)

        def sdxl() -> None:
            down, middle = control(
                x, moment, words, torch.empty(pair, 3, 1024, 1024), added_cond_kwargs=more, return_dict=False
            )
            unet(
                x,
                moment,
                words,
                added_cond_kwargs=more,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            )

        report("SDXL U-Net with ControlNet", unet, sdxl, latents * pair, "latent pixel", control)
        report("SDXL ControlNet", control)
        report("SDXL ControlNet union ProMax", ControlNetUnionModel(num_control_type=8, **SDXL))

        upscale = UNet2DConditionModel(
            in_channels=7,
            block_out_channels=(256, 512, 512, 1024),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            only_cross_attention=(True, True, True, False),
            attention_head_dim=8,
            cross_attention_dim=1024,
            use_linear_projection=True,
            num_class_embeds=1000,
        )
        wide, short = torch.empty(pair, 7, 128, 128), torch.empty(pair, 154, 1024)
        level = torch.tensor([20, 20])
        report(
            "x4 upscaler U-Net",
            upscale,
            lambda: upscale(wide, moment, short, class_labels=level),
            latents * pair,
            "latent pixel",
        )

        pixart = PixArtTransformer2DModel(
            sample_size=128,
            num_layers=28,
            attention_head_dim=72,
            num_attention_heads=16,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=1152,
            caption_channels=4096,
            use_additional_conditions=False,
        )
        prose, mask = torch.empty(pair, 300, 4096), torch.ones(pair, 300)
        report(
            "PixArt-Sigma transformer",
            pixart,
            lambda: pixart(
                x,
                encoder_hidden_states=prose,
                encoder_attention_mask=mask,
                timestep=moment.expand(pair),
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            ),
            latents * pair,
            "latent pixel",
        )

        flux = FluxTransformer2DModel(**FLUX)
        tokens = torch.empty(pair, latents // 4, 64)
        report(
            "FLUX.1 transformer",
            flux,
            lambda: flux(
                hidden_states=tokens,
                timestep=torch.empty(pair),
                guidance=torch.empty(pair),
                pooled_projections=torch.empty(pair, 768),
                encoder_hidden_states=torch.empty(pair, 512, 4096),
                txt_ids=torch.zeros(512, 3),
                img_ids=torch.zeros(latents // 4, 3),
            ),
            latents * pair,
            "latent pixel",
        )
        report("Qwen-Image transformer", QwenImageTransformer2DModel())

        torch.set_default_dtype(torch.float32)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        report("SDXL VAE, decoding", vae, lambda: vae.decode(torch.empty(1, 4, 128, 128)), 1024 * 1024, "pixel")


if __name__ == "__main__":
    main()
