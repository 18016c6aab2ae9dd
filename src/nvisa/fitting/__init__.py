"""How a module is fitted: the loop, starts, checkpoints. Nothing here knows a method."""
