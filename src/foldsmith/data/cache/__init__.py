"""Decoded images and facts about images, kept on disk."""
