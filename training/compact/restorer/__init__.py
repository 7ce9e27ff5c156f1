"""The guided compact restorer: clean photographs in; two small networks, as shipped, and their card out.

    python -m training.compact.restorer detail --photos DIR [--rated DIR] --run RUN
    python -m training.compact.restorer tone   --photos DIR [--rated DIR] --run RUN
    python -m training.compact.restorer export --photos DIR [--rated DIR] --run RUN --out restore_bridge/restorers/compact/data

`cases` and `pool` make what is trained on, `network` is what is trained, `fit_detail` and `fit_tone` train it, `export`
and `card` make what is shipped. `--short` runs every part with two steps.
"""  # noqa: E501
