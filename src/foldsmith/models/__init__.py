"""Backbones, heads, self-supervised methods, and the hardware they run on."""
