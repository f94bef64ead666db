# The guide to generation strategies: a cache that is kept off the GPU, or in a file (with GPT-2 in Phi-3's place).
import torch
from loquent import AutoTokenizer, AutoModelForCausalLM

ckpt = "openai-community/gpt2"
device = "cuda:0" if torch.cuda.is_available() else "cpu"
tokenizer = AutoTokenizer.from_pretrained(ckpt)
model = AutoModelForCausalLM.from_pretrained(ckpt, torch_dtype=torch.float16).to(device)
inputs = tokenizer("Fun fact: The shortest", return_tensors="pt").to(model.device)

offloaded = model.generate(**inputs, do_sample=False, max_new_tokens=23, cache_implementation="offloaded")
print(tokenizer.batch_decode(offloaded, skip_special_tokens=True)[0])

out = model.generate(**inputs, do_sample=False, max_new_tokens=23)
print(tokenizer.batch_decode(out, skip_special_tokens=True)[0])
