"""Graph to graph to program: gradients, optimisation, fusion, planning."""
