"""How the model that ships in the package is made: its text, vocabulary, training, figures and model card."""
