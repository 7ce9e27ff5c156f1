"""A tiny SUPIR with random weights: our own networks and diffusers' real classes, saved to a folder."""

from tests.tiny_diffusion import SDXL, SEED, _unet, clip_encoder, clip_tokenizer, vae

SPREAD = 0.3
"""Of the random weights in layers that a fresh model has at zero, so that every part has an effect."""


def networks():
    """(denoiser, control copy, robust encoder, VAE) that differ from each other."""
    import torch

    from restore_bridge.restorers.diffusion.supir.architecture import Architecture
    from restore_bridge.restorers.diffusion.supir.autoencoder import RobustEncoder
    from restore_bridge.restorers.diffusion.supir.control import SUPIRControl
    from restore_bridge.restorers.diffusion.supir.unet import SUPIRUNet

    base = _unet(**SDXL)
    torch.manual_seed(SEED + 2)
    unet = SUPIRUNet.from_config(base.config)
    control = SUPIRControl.for_architecture(Architecture.from_unet(base.config))
    own_vae = vae(scaling_factor=0.13025)
    encoder = RobustEncoder.like(own_vae)
    with torch.no_grad():
        for name, parameter in [*unet.connectors.named_parameters(), *control.named_parameters()]:
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=SPREAD)
            if ".attn2.to_out" in name:
                parameter *= 30  # freshly drawn, the words would move the picture by less than one step of 255
        for name, parameter in unet.named_parameters():
            if ".attn2.to_out" in name:
                parameter *= 30
        for parameter in encoder.encoder.parameters():  # the last layer is the VAE's own
            parameter += 0.05 * torch.randn_like(parameter)
    return unet.eval(), control.eval(), encoder.eval(), own_vae


def pipeline():
    from restore_bridge.restorers.diffusion.supir.pipeline import SUPIRPipeline
    from restore_bridge.restorers.diffusion.supir.schedule import SUPIRSchedule

    unet, control, encoder, own_vae = networks()
    first, second = clip_tokenizer(), clip_tokenizer(pad="!")
    return SUPIRPipeline(
        vae=own_vae,
        text_encoder=clip_encoder(first),
        text_encoder_2=clip_encoder(second, projection=32),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet,
        control=control,
        denoise_encoder=encoder,
        scheduler=SUPIRSchedule(),
    )


def supir(folder):
    pipeline().save_pretrained(folder)
    return folder
