"""A tiny DreamClear with random weights: real classes, and a checkpoint in the released naming."""

import torch

from restore_bridge.restorers.diffusion.dreamclear import released
from restore_bridge.restorers.diffusion.dreamclear.cleaner import SwinIRModel
from restore_bridge.restorers.diffusion.dreamclear.released import Sizes
from tests import tiny_diffusion

SIZES = Sizes(width=48, inner=96, blocks=3, control_blocks=2, text_width=tiny_diffusion.WIDTH, grid=8)


def checkpoint(sizes=SIZES, seed=7):
    """Random tensors in the released naming, none of them 0, so that every part has a say."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for entry in released.table(sizes):
        fan = max(1, torch.Size(entry.shape).numel() // entry.shape[0]) if len(entry.shape) > 1 else 1
        spread = 0.1 if len(entry.shape) == 1 else fan**-0.5
        tensors[entry.there] = torch.randn(entry.shape, generator=generator) * spread
        if entry.there.endswith(("norm1.weight", "norm2.weight")):
            tensors[entry.there] += 1
        if entry.there.endswith(("scale_shift_table", "proj_mul.weight", "proj_add.weight")):
            tensors[entry.there] *= 0.3
    tensors["base_model.final_layer.linear.weight"] *= 0.1  # so that the walk does not run away
    tensors["base_model.y_embedder.y_embedding"] = torch.randn(
        (sizes.text_length, sizes.text_width), generator=generator
    )
    return tensors


def cleaner():
    """A SwinIR that folds by 8, as the released one."""
    torch.manual_seed(3)
    return SwinIRModel(img_size=16, embed_dim=12, depths=(2, 2), num_heads=(2, 2)).eval()


def save_checkpoint(path):
    """The checkpoint as a file, as the authors give it: within a wrapper where it is a pickle."""
    if str(path).endswith(".safetensors"):
        from safetensors.torch import save_file

        save_file(checkpoint(), path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in checkpoint().items()}}, path)
    return str(path)


def save_swinir(path):
    """The pre-pass as a file in the released naming."""
    from safetensors.torch import save_file

    from restore_bridge.restorers.diffusion.dreamclear.cleaner import to_released

    save_file({name: tensor.contiguous() for name, tensor in to_released(cleaner().state_dict()).items()}, path)
    return str(path)


def build(dtype=None):
    """The whole pipeline in memory."""
    from restore_bridge.restorers.diffusion.dreamclear.convert import build_transformer
    from restore_bridge.restorers.diffusion.dreamclear.pipeline import DreamClearPipeline
    from restore_bridge.restorers.diffusion.dreamclear.scheduler import IDDPMScheduler

    pipe = DreamClearPipeline(
        **networks(),
        transformer=build_transformer(checkpoint(), dtype=dtype),
        scheduler=IDDPMScheduler(),
        cleaner=cleaner(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline(folder):
    """The whole pipeline, saved as `DreamClearPipeline` saves itself."""
    from restore_bridge.restorers.diffusion.loading import quiet

    with quiet():
        build().save_pretrained(folder)
    return folder


def networks():
    """VAE, text encoder and tokenizer."""
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(tiny_diffusion.SEED)
    tokenizer = tiny_diffusion.t5_tokenizer()
    t5 = T5Config(vocab_size=len(tokenizer), d_model=tiny_diffusion.WIDTH, d_ff=37, d_kv=8, num_layers=2, num_heads=4)
    encoder = T5EncoderModel(t5).eval()
    return {"tokenizer": tokenizer, "text_encoder": encoder, "vae": tiny_diffusion.vae(scaling_factor=0.18215)}


def base(folder):
    """A PixArt-α pipeline, which the VAE, the encoder and the tokenizer are taken from."""
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

    from restore_bridge.restorers.diffusion.loading import quiet

    pipe = PixArtAlphaPipeline(
        **networks(),
        transformer=PixArtTransformer2DModel(
            num_layers=1, num_attention_heads=2, attention_head_dim=4, cross_attention_dim=8, sample_size=8
        ),
        scheduler=DPMSolverMultistepScheduler(),
    )
    with quiet():
        pipe.save_pretrained(folder)
    return folder
