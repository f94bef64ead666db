"""LoRA adapters (arXiv:2106.09685) on models of any family, in PEFT's files; docs/adapters.md shows them at work.

`targets` reads from a family's names which of our outputs an adapted layer of the checkpoint is, `layer` computes,
`attach` knows which adapters a model has and which act, `merging` puts them into the weights, `files` reads and writes.
"""

from loquent.torch.adapters.attach import add_lora
from loquent.torch.adapters.files import load_adapter, load_adapter_values, save_adapter
from loquent.torch.adapters.merging import Merged

__all__ = ["Merged", "add_lora", "load_adapter", "load_adapter_values", "save_adapter"]
