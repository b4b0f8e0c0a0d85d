"""Who is it: identity vectors, and how to compare them."""
