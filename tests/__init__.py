"""The tests mirror the tree; `tiny` builds toy subjects, `contract` holds the questions asked of every pipeline."""
