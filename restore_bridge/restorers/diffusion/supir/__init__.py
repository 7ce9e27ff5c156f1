"""SUPIR (Yu et al., "Scaling Up to Excellence", CVPR 2024) over SDXL, on diffusers' parts. Weights are non-commercial.

architecture.py   the shape of a model as a few numbers, and where control enters
connectors.py     ZeroSFT and ZeroCrossAttn: how a control feature enters
control.py        the control copy of SDXL's encoder half
unet.py           SDXL's denoiser with the connectors
autoencoder.py    the degradation-robust encoder
schedule.py       noise levels
sampling.py       the two walks from noise to a picture
windows.py        windows over a large latent
pipeline.py       all of it as a pipeline of diffusers
names.py          released names of tensors, and ours
convert.py        released checkpoints to a pipeline, strict in both directions
restorer.py       the restorer `supir`
"""
