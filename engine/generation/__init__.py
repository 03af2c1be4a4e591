"""From a request to tokens: loading a model, the decode loop, sampling."""
