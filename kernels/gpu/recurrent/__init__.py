"""Layers with a recurrent state on a GPU: short convolution, gated delta rule by steps or in chunks, gated norm.

`delta_net` launches them, `state` is what they advance, `ops` is their part of the op set.
"""
