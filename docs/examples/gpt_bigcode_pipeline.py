# https://huggingface.co/docs/transformers/model_doc/gpt_bigcode: Pipeline. The result is printed here.
import torch
from loquent import pipeline

pipeline = pipeline(task="text-generation", model="bigcode/gpt_bigcode-santacoder", dtype="auto",)
print(pipeline("def fibonacci(n):"))
