"""Weight files trained here and the manifest of all others: data only, read by `studio.weights`."""
