"""The text that follows a prompt, from the ids that follow its ids; it generates nothing."""

from __future__ import annotations

from collections.abc import Sequence

from loquent.text.stops import StopCutter
from loquent.tokenization import IncrementalDetokenizer, PreTrainedTokenizer


class Continuation:
    """New text of one row, piece by piece: `decode(prompt + new)` without the text of the prompt.

    The prompt's ids go through the same detokenizer, so that a space between the prompt and what follows is right for
    tokenizers that write it into the next token. Special tokens are left out; text ends before a stop string.

    Args:
        tokenizer: whose ids they are.
        prompt: ids whose text is left out.
        stops: texts before which the text ends.
        strip: whether white space at the beginning is left out.
        healed: how many of the prompt's last tokens come again, perhaps with more text.
        exact: whether the text is as a grammar wants it, without the clean-up that a tokenizer may ask for.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizer,
        prompt: Sequence[int],
        stops: Sequence[str],
        strip: bool,
        healed: int = 0,
        exact: bool = False,
    ) -> None:
        how: dict[str, bool] = {"clean_up_tokenization_spaces": False} if exact else {}
        self._detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=True, **how)
        before = self._detokenizer.push(prompt[: len(prompt) - healed])
        # The detokenizer may hold some of the prompt's text back until it sees what follows.
        self._of_prompt = len(tokenizer.decode(prompt, skip_special_tokens=True, **how)) - len(before)
        self._cutter = StopCutter(stops)
        self._strip = strip

    def push(self, tokens: Sequence[int]) -> str:
        """The text that is final after these tokens; often it is empty."""
        return self._stripped(self._cutter.push(self._new(self._detokenizer.push(tokens))))

    def flush(self) -> str:
        """The rest, when there are no more tokens."""
        rest = self._cutter.push(self._new(self._detokenizer.flush()))
        return self._stripped(rest + self._cutter.flush())

    def _new(self, text: str) -> str:
        skipped = min(self._of_prompt, len(text))
        self._of_prompt -= skipped
        return text[skipped:]

    def _stripped(self, text: str) -> str:
        if self._strip:
            text = text.lstrip()
            self._strip = not text
        return text
