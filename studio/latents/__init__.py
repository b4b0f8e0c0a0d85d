"""Tools on the generator's latents: measuring generated faces, moving along directions, searching."""
