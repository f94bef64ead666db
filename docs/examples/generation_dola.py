# The guide to generation strategies: DoLa, with the higher layers and with two named ones.
from loquent import AutoTokenizer, AutoModelForCausalLM, set_seed
import torch

tokenizer = AutoTokenizer.from_pretrained("huggyllama/llama-7b")
model = AutoModelForCausalLM.from_pretrained("huggyllama/llama-7b", torch_dtype=torch.float16)
device = "cuda" if torch.cuda.is_available() else "cpu"
model.to(device)
set_seed(42)

text = "On what date was the Declaration of Independence officially signed?"
inputs = tokenizer(text, return_tensors="pt").to(device)

# Vanilla greedy decoding
vanilla_output = model.generate(**inputs, do_sample=False, max_new_tokens=50)
print(tokenizer.batch_decode(vanilla_output[:, inputs.input_ids.shape[-1] :], skip_special_tokens=True))

# DoLa decoding with contrasting higher part of layers (layers 16,18,...,30)
dola_high_output = model.generate(**inputs, do_sample=False, max_new_tokens=50, dola_layers="high")
print(tokenizer.batch_decode(dola_high_output[:, inputs.input_ids.shape[-1] :], skip_special_tokens=True))

# DoLa decoding with contrasting specific layers (layers 28 and 30)
dola_custom_output = model.generate(
    **inputs, do_sample=False, max_new_tokens=50, dola_layers=[28, 30], repetition_penalty=1.2
)
print(tokenizer.batch_decode(dola_custom_output[:, inputs.input_ids.shape[-1] :], skip_special_tokens=True))
