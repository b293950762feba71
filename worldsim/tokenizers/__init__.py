"""Frames to latent tokens and back: one protocol, a trained ViT autoencoder, and pixels as they are."""
