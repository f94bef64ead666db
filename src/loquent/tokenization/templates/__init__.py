"""Chat templates: from a conversation to the text that a model was trained on; nothing is tokenized here."""

from __future__ import annotations

from loquent.tokenization.templates.render import Rendered, render

# DialoGPT's format (arXiv:1911.00536, section 3.1): turns one after another, each ended by EOS. Its folder has this
# template in newer revisions only; pass it as `chat_template=` for the others, and for models trained the same way.
TURNS_JOINED_BY_EOS = "{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}"

__all__ = ["TURNS_JOINED_BY_EOS", "Rendered", "render"]
