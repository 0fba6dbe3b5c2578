"""The words that the node and the training share: views, findings, pixels. No torch, no database, no network."""
