# The guide to generation strategies: arguments of generate() override the model's configuration.
from loquent import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("distilbert/distilgpt2")
my_model = AutoModelForCausalLM.from_pretrained("distilbert/distilgpt2")
inputs = tokenizer("I look forward to", return_tensors="pt")

default = my_model.generate(**inputs)
searched = my_model.generate(**inputs, num_beams=4, do_sample=True)
sampled = my_model.generate(**inputs, do_sample=True, num_return_sequences=3, max_new_tokens=30)
