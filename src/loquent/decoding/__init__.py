"""How text is decoded: strategies, what they may ask a model for, the rules on scores, and when to stop; no models."""
