"""System A: Mammo-CLIP of Ghosh, Poynton, Visweswaran and Batmanghelich, MICCAI 2024 (arXiv 2405.12255)."""
