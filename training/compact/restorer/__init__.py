"""The guided compact restorer: clean photographs in; two small networks, as shipped, and their card out.

    python -m training.compact.restorer detail --photos DIR [--rated DIR] --run RUN
    python -m training.compact.restorer tone   --photos DIR [--rated DIR] --run RUN
    python -m training.compact.restorer export --photos DIR [--rated DIR] --run RUN --out restore_bridge/restorers/compact/data

`cases` and `pool` make what is trained on, `network` is what is trained, `fit_detail` and `fit_tone` train it, `export`
and `card` make what is shipped. `--short` runs every part with two steps.

The shipped detail network was fitted in two runs: 38,000 steps from random weights, while the first guess undid round
blurs alone, and then, as it had come to undo motions as well, these on the same photographs:

    python -m training.compact.restorer detail ... --start detail.onnx --steps 9000 --rate 5e-4

The card holds the hash of the network that was gone on from. Whether one long run does as well was not tried.
"""  # noqa: E501
