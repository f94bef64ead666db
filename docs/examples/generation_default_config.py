# The guide to generation strategies: the default configuration, which is printed where it differs from the defaults.
from loquent import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("distilbert/distilgpt2")
print(model.generation_config)
