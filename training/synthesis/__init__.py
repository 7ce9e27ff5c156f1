"""Synthetic training data with known truth: distorted photos, masks, perception tasks and measured trajectories.

    python -m training.synthesis PHOTOS --out DIR --count 2000 --seed 1
    python -m training.synthesis PHOTOS --out DIR --count 4000 --seed 1 --resume     # goes on, or makes it longer

(from an installed wheel: `python -m zoomiqa.training.synthesis`). PHOTOS are clean photographs, files or folders. DIR
gets `pictures/`, `masks/`, `samples.jsonl` (the journal: everything known of every sample), `perception.jsonl`,
`trajectories.jsonl`, `card.json` and `README.md`. The same seed, options and photos give the same bytes, with or
without interruptions, however often the run is made longer.

It follows Refine-IQA's perception stage (locally distorted images with pixel masks; tasks on what, how strong and
where) and supplies what a cold start of Zoom-IQA (Sec. 3.1.2) needs when there is no teacher model: replies in the
exact format, with crops written from known truth.

Departures and choices, said plainly:

- Refine-IQA's images, its list of twelve distortions and its prompts are not public. Here there are the sixteen
  distortions of `zoomiqa.imaging.distortions`, which make fifteen families of flaws; the questions are ours.
- Masks are soft-edged shapes that know nothing of objects. A place is taken only where the distortion really changes
  the picture: blur in a clear sky is no blur.
- Ratings are not human. They are what the compact assessor (fitted on human scores) says of the clean photo and of the
  photo distorted everywhere, pooled by the affected area (`training.synthesis.teacher`).
- The texts come from phrases, varied by the seed. They teach form, place, kind and strength, not rich language; a
  teacher model's trajectories (`training.curation`) do.
"""
