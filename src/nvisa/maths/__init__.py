"""The mathematics: pure functions on tensors and arrays. Nothing here knows a network."""
