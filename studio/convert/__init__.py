"""Foreign weight formats, one file each: bytes in, a network out. Only `studio.weights` imports these."""
