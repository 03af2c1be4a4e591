"""What computes logits for the decode loop: native (ours, on CPU and GPUs) and llama.cpp; the KV prefix cache."""
