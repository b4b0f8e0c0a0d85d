"""Mathematics of pictures: octaves, joining, seams. Pure functions of tensors."""
