"""How the weights that the package ships were fitted: `rating`, `signals`, `diagnosis`, `restorer`, one command each.

What they share: `photos` (which clean photographs may be fitted on), `scored` (what people said of photos, and which
are held back in turn), `agreement` (correlations), `files` (ONNX with 16-bit weights; the command in a card). Each card
lies beside the weights that it is of.
"""
