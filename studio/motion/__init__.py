"""How a head moves: motions that are tracked or made up, and pictures that are moved by them."""
