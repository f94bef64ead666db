# The guide to generation strategies: a cache of keys and values in 4 bits, and the plain one.
import torch
from loquent import AutoTokenizer, AutoModelForCausalLM

device = "cuda:0" if torch.cuda.is_available() else "cpu"
tokenizer = AutoTokenizer.from_pretrained("meta-llama/Llama-2-7b-chat-hf")
model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-2-7b-chat-hf", torch_dtype=torch.float16).to(device)
inputs = tokenizer("I like rock music because", return_tensors="pt").to(model.device)

quantized = model.generate(
    **inputs, do_sample=False, max_new_tokens=20, cache_implementation="quantized", cache_config={"nbits": 4}
)
print(tokenizer.batch_decode(quantized, skip_special_tokens=True)[0])

out = model.generate(**inputs, do_sample=False, max_new_tokens=20)
print(tokenizer.batch_decode(out, skip_special_tokens=True)[0])
