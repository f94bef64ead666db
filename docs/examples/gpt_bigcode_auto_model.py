# https://huggingface.co/docs/transformers/model_doc/gpt_bigcode: AutoModel.
import torch
from loquent import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("bigcode/gpt_bigcode-santacoder")
model = AutoModelForCausalLM.from_pretrained("bigcode/gpt_bigcode-santacoder", dtype="auto",)

inputs = tokenizer("def fibonacci(n):", return_tensors="pt")
outputs = model.generate(**inputs, max_length=50)
print(tokenizer.decode(outputs[0]))
