"""What happens next: a Diffusion Transformer over latent frames, its heads and its training."""
