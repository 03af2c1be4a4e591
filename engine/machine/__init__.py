"""This machine: what it has, how fast its memory is, whether its GPUs compute; other machines by profile."""
