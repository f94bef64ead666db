# A conversation with DialoGPT: its format is the turns so far, each ended by the EOS token.
import torch
from loquent import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("microsoft/DialoGPT-medium")
model = AutoModelForCausalLM.from_pretrained("microsoft/DialoGPT-medium")

history = torch.empty(1, 0, dtype=torch.long)
for turn in range(5):
    question = tokenizer.encode(input("You: ") + tokenizer.eos_token, return_tensors="pt")
    ids = torch.cat([history, question], dim=-1)
    history = model.generate(ids, max_length=1000, pad_token_id=tokenizer.eos_token_id)
    print("DialoGPT:", tokenizer.decode(history[0, ids.shape[-1] :], skip_special_tokens=True))
