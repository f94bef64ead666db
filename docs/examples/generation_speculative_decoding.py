# The guide to generation strategies: speculative decoding, greedy and sampled.
from loquent import AutoModelForCausalLM, AutoTokenizer, set_seed

set_seed(42)

prompt = "Alice and Bob"
checkpoint = "EleutherAI/pythia-1.4b-deduped"
assistant_checkpoint = "EleutherAI/pythia-160m-deduped"

tokenizer = AutoTokenizer.from_pretrained(checkpoint)
inputs = tokenizer(prompt, return_tensors="pt")

model = AutoModelForCausalLM.from_pretrained(checkpoint)
assistant_model = AutoModelForCausalLM.from_pretrained(assistant_checkpoint)
outputs = model.generate(**inputs, assistant_model=assistant_model)
print(tokenizer.batch_decode(outputs, skip_special_tokens=True))

sampled = model.generate(**inputs, assistant_model=assistant_model, do_sample=True, temperature=0.5)
print(tokenizer.batch_decode(sampled, skip_special_tokens=True))
