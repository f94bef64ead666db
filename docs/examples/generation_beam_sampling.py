# The guide to generation strategies: beam-search multinomial sampling; GPT-2 stands in for its T5.
from loquent import AutoTokenizer, AutoModelForCausalLM, set_seed

set_seed(0)

prompt = "translate English to German: The house is wonderful."
checkpoint = "openai-community/gpt2"

tokenizer = AutoTokenizer.from_pretrained(checkpoint)
inputs = tokenizer(prompt, return_tensors="pt")

model = AutoModelForCausalLM.from_pretrained(checkpoint)

outputs = model.generate(**inputs, num_beams=5, do_sample=True)
print(tokenizer.decode(outputs[0], skip_special_tokens=True))
