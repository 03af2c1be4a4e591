"""Mixture of experts on a GPU: routing, resident experts, experts streamed through buffers."""
