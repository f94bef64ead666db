"""Writes a folder in the Hugging Face format as one of CTranslate2's, with its own converter.

Run in an environment that has ctranslate2, torch and transformers:
python -m cpu.ctranslate2_folders FOLDER PRECISION OUT
"""

from __future__ import annotations

import sys

from ctranslate2.converters import TransformersConverter
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

if __name__ == "__main__":
    folder, precision, out = sys.argv[1:]
    # The converter asks for what transformers 5 has under other names.
    GPTNeoXConfig.rotary_pct = property(lambda config: config.rope_parameters["partial_rotary_factor"])
    GPTNeoXForCausalLM.embed_out = property(lambda model: model.lm_head)
    converter = TransformersConverter(folder, copy_files=["tokenizer.json"])
    converter.convert(out, quantization=None if precision == "float32" else precision, force=True)
