"""Tiny pipelines with random weights: diffusers' real classes and real tokenizer classes, saved to a folder.

Every network is a few thousand parameters wide, but halves and doubles sizes as its model does: a latent pixel is 8
pixels wide, so sizes, windows and padding are those of the real ones.
"""

import json
import warnings
from functools import cache

WORDS = (
    "a real photograph fine true to life detail clean edges natural skin and fabric texture balanced light drawing"
    " rendered image plastic smeared invented pattern halo at edges over sharpened compression blocks banding watermark"
    " high resolution colour low quality deformed painting sharp focus crisp smooth surfaces exposed noise grain blur"
    " ringing severe slight moderate in the upper left lower right sky grass wall cat dog red green blue"
)
WIDTH = 32
SEED = 5


@cache  # of merges that occur equally often, the trainer takes whichever its hash map names first
def _bpe(end):
    """(vocabulary, merges) of a byte-level BPE over `WORDS`, with marks as CLIP has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=end))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, end_of_word_suffix=end, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(WORDS.split() * 2, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = dict(model["vocab"])
    for letter in alphabet:  # a letter may stand at any word's end
        vocabulary.setdefault(letter + end, len(vocabulary))
    for mark in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[mark] = len(vocabulary)
    return vocabulary, [tuple(pair) for pair in model["merges"]]


def clip_tokenizer(pad="<|endoftext|>"):
    from transformers import CLIPTokenizer

    vocabulary, merges = _bpe("</w>")
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)


def t5_tokenizer():
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), (",", -3.0)]
    pieces += [(f"▁{word}", -4.0) for word in dict.fromkeys(WORDS.split())]
    pieces += [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz0123456789-'"]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def clip_encoder(tokenizer, projection=None):
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(SEED)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=projection or WIDTH,
        max_position_embeddings=77,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def vae(levels=4, **changes):
    """Halves sizes `levels` - 1 times."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(SEED)
    return AutoencoderKL(
        block_out_channels=[8] * levels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=128,
        **changes,
    ).eval()


def _unet(**changes):
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(SEED)
    settings = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "cross_attention_dim": 2 * WIDTH,
        **changes,
    }
    return UNet2DConditionModel(**settings).eval()


SDXL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 1),
    "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
}


def _awake(network):
    """Give the zero convolutions of a fresh ControlNet some weight, as training would."""
    import torch

    torch.manual_seed(SEED + 1)
    for parameter in network.parameters():
        if not parameter.detach().abs().any():
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def _euler():
    """With SDXL's own settings."""
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )


def _save_sdxl(pipeline_class, unet, controlnet, folder):
    first, second = clip_tokenizer(), clip_tokenizer(pad="!")
    pipeline = pipeline_class(
        vae=vae(),
        text_encoder=clip_encoder(first),
        text_encoder_2=clip_encoder(second, projection=WIDTH),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        controlnet=_awake(controlnet).eval(),
        scheduler=_euler(),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def sdxl_tile(folder):
    from diffusers import ControlNetModel, StableDiffusionXLControlNetImg2ImgPipeline

    unet = _unet(**SDXL)
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 8, 8))
    return _save_sdxl(StableDiffusionXLControlNetImg2ImgPipeline, unet, controlnet, folder)


def sdxl_union(folder, modes=8):
    from diffusers import ControlNetUnionModel, StableDiffusionXLControlNetUnionImg2ImgPipeline

    unet = _unet(**SDXL)
    names = (
        "down_block_types",
        "block_out_channels",
        "layers_per_block",
        "norm_num_groups",
        "attention_head_dim",
        "use_linear_projection",
        "cross_attention_dim",
        "addition_embed_type",
        "addition_time_embed_dim",
        "transformer_layers_per_block",
        "projection_class_embeddings_input_dim",
    )
    controlnet = ControlNetUnionModel(
        **{name: unet.config[name] for name in names},
        conditioning_embedding_out_channels=(4, 4, 8, 8),
        num_control_type=modes,
        num_trans_channel=8,
        num_trans_head=2,
        num_proj_channel=8,
    )
    return _save_sdxl(StableDiffusionXLControlNetUnionImg2ImgPipeline, unet, controlnet, folder)


def pixart(folder):
    import torch
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(SEED)
    tokenizer = t5_tokenizer()
    t5 = T5Config(vocab_size=len(tokenizer), d_model=WIDTH, d_ff=37, d_kv=8, num_layers=2, num_heads=4)
    transformer = PixArtTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=WIDTH,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        use_additional_conditions=False,
    )
    with torch.no_grad():  # freshly drawn, the words would move the picture by less than one step of 255
        for block in transformer.transformer_blocks:
            block.attn2.to_out[0].weight *= 30
    pipeline = PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(t5).eval(),
        vae=vae(),
        transformer=transformer.eval(),
        scheduler=DPMSolverMultistepScheduler(beta_schedule="linear", beta_end=0.02, beta_start=0.0001),
    )
    pipeline.save_pretrained(folder)
    return folder


def sd_upscale(folder):
    from diffusers import DDIMScheduler, DDPMScheduler, StableDiffusionUpscalePipeline

    tokenizer = clip_tokenizer()
    pipeline = StableDiffusionUpscalePipeline(
        vae=vae(levels=3, scaling_factor=0.08333),
        text_encoder=clip_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=_unet(in_channels=7, cross_attention_dim=WIDTH, num_class_embeds=1000),
        low_res_scheduler=DDPMScheduler(beta_schedule="scaled_linear"),
        scheduler=DDIMScheduler(
            prediction_type="v_prediction", beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False
        ),
    )
    pipeline.save_pretrained(folder)
    return folder


def qwen_edit(folder):
    import torch
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImageEditPlusPipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import (
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    from tests.tiny_vlm import CHAT_TEMPLATE, build_config, build_tokenizer

    torch.manual_seed(SEED)
    tokenizer = build_tokenizer()
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 28 * 4),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        axes_dims_rope=(8, 4, 4),
    )
    pipeline = QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ).eval(),
        text_encoder=Qwen2_5_VLForConditionalGeneration(build_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        processor=processor,
        transformer=transformer.eval(),
    )
    pipeline.save_pretrained(folder)
    return folder


def flux_upscaler(folder):
    import torch
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        FluxControlNetModel,
        FluxControlNetPipeline,
        FluxTransformer2DModel,
    )
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(SEED)
    first, second = clip_tokenizer(), t5_tokenizer()
    shape = {
        "patch_size": 1,
        "in_channels": 16,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": WIDTH,
        "axes_dims_rope": (4, 4, 8),
        "guidance_embeds": True,
    }
    t5 = T5Config(vocab_size=len(second), d_model=WIDTH, d_ff=37, d_kv=8, num_layers=2, num_heads=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`FluxPosEmbed` is deprecated", FutureWarning)
        controlnet = FluxControlNetModel(num_layers=1, num_single_layers=1, **shape)
    pipeline = FluxControlNetPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=clip_encoder(first),
        tokenizer=first,
        text_encoder_2=T5EncoderModel(t5).eval(),
        tokenizer_2=second,
        transformer=FluxTransformer2DModel(num_layers=1, num_single_layers=1, **shape).eval(),
        controlnet=_awake(controlnet).eval(),
    )
    pipeline.save_pretrained(folder)
    return folder


def _supir(folder):
    from tests import tiny_supir

    return tiny_supir.supir(folder)


def _dreamclear(folder):
    from tests import tiny_dreamclear

    return tiny_dreamclear.pipeline(folder)


BUILDERS = {
    "sdxl-tile": sdxl_tile,
    "sdxl-union": sdxl_union,
    "pixart": pixart,
    "sd-upscale": sd_upscale,
    "qwen-edit": qwen_edit,
    "flux-upscaler": flux_upscaler,
    "dreamclear": _dreamclear,
    "supir": _supir,
}
"""Makers of a folder by the restorer that takes it."""
