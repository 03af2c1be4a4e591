"""The screens on which models are chosen: the manager and the first-start wizard."""
