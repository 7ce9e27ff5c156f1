"""Text-guided diffusion restorers. Nothing here imports torch or diffusers before a picture is restored.

base.py            what a restoration is, step by step; options, plan, the record of what was done
loading.py         a pipeline in memory: where from, which device and number format, what is moved when
encoding.py        words to embeddings, within what the encoder reads, and what was cut
sizes.py           which size is worked at, and the way back to the pixel
latent_tiling.py   windows over a large latent, their blend, and which words go to which window
sampling.py        the denoising loop
memory.py          how much memory a run takes, as figures with their formula
colour.py          the colour fix of SUPIR and DreamClear, on tensors
supir/             SUPIR: its networks, walks, converter and pipeline
dreamclear/        DreamClear: its networks, schedule, converter and pipeline
sdxl_tile.py ...   one small file per model: what it is called, what it costs, what is special about it
"""
