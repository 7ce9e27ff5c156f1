"""DreamClear (Ai et al., NeurIPS 2024) on diffusers' parts."""
