"""Guide a stock diffusers pipeline with the reasoning: what is wrong with the photo becomes its two prompts.

python examples/diffusers_pipeline.py photo.jpg restored.png [MODEL]

MODEL is a folder or hub id of any Stable Diffusion XL checkpoint; the reasoning itself needs no model.
"""

import sys

import torch
from diffusers import AutoPipelineForImage2Image
from PIL import Image

from restore_bridge.pipelines import prompts_for

source, target = sys.argv[1:3]
model = sys.argv[3] if len(sys.argv) > 3 else "stabilityai/stable-diffusion-xl-base-1.0"
device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = AutoPipelineForImage2Image.from_pretrained(model).to(device)

photo = Image.open(source).convert("RGB")
words = prompts_for(photo, pipe)
print("positive:", words.prompts.positive)
print("negative:", words.prompts.negative)
generator = torch.Generator("cpu").manual_seed(42)
pipe(**words.arguments, image=photo, strength=0.3, num_inference_steps=30, generator=generator).images[0].save(target)
