"""Episodes on disk, their latents, and the clips that models train on."""
