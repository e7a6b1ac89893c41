"""Miniature backbones that the project builds itself: ordinary Hugging Face folders, minutes of one CPU core each."""
