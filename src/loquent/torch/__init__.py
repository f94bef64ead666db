"""The torch backend: reads compositions into modules that train, load checkpoints and run the engine's batches."""
