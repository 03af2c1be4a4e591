"""Ops between the products: norms added to the residual, soft caps."""
