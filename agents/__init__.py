"""Policies and how they learn, in any Gymnasium vector env. Importing the package alone does not import torch."""
