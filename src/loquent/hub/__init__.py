"""Files of models, on disk and on a hub: finding, reading, writing, sharing; knows nothing of what they mean."""
