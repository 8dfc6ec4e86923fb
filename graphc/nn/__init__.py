"""Networks: modules, layers, activations and losses."""
