"""What a program that uses Loquent does up to its first token; nothing is imported that such a program would not.

python -m cpu.first_token FOLDER PRECISION THREADS TEXT

The folder "default" is the model in the package; the threads are those of LOQUENT_THREADS.
"""

import sys

import loquent

folder, precision, _, text = sys.argv[1:]
model = loquent.load(None if folder == "default" else folder, precision=precision, device="cpu")
for event in model.events([text], max_new_tokens=4, do_sample=False):
    if event.tokens:
        print(event.text, flush=True)
        break
