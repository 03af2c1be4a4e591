"""One forward pass on two op sets: layers and hot experts on a device, the other experts on the host."""
