"""The screens on which models are chosen: the model manager and the first-start wizard."""
