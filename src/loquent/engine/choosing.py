"""Choosing: what a backend that selects is asked about the reads of a request; it answers nothing itself."""

from __future__ import annotations

from loquent.cache import Sequence
from loquent.decoding.choice import Choice
from loquent.decoding.task import Task
from loquent.decoding.wants import Next, Propose, Top, Verify, Want

_SEED_MASK = (1 << 64) - 1


class Chooser:
    """The choices of one request: one object for each of the reads that it has in a step, brought up to date by each.

    Args:
        task: the request's.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._rules, self._sampled = task, task.decoding.rules, task.decoding.sampled
        self._choices: list[Choice] = []
        seed = task.decoding.seed & _SEED_MASK
        self._draft = Choice(seed=seed)  # a request drafts one token at a time
        self._verified = Choice(seed=seed)

    def choice(self, number: int, want: Want, sequence: Sequence) -> Choice | None:
        """How the last row of the request's read `number` is answered, when its sequence has prepared all its tokens.

        None where a backend cannot be asked that: the row is answered by the rules themselves.
        """
        if type(want) is Propose:
            return self._proposal(want, sequence)
        if type(want) is not Next and (type(want) is not Top or want.also):
            return None
        while number >= len(self._choices):
            self._choices.append(Choice(seed=self._task.decoding.seed & _SEED_MASK))
        choice = self._choices[number]
        if isinstance(want, Top):
            choice.normalized, choice.sampled, choice.best = True, False, want.count
        else:
            choice.normalized, choice.sampled, choice.best = False, self._sampled, 0
            if self._sampled:
                choice.position = self._task.position
        return self._narrowed(choice, sequence) if self._rules else choice

    def verified(self, index: int, want: Verify, sequence: Sequence) -> Choice | None:
        """How the token behind the first `index` proposals is chosen, where all of them stand; None as in `choice`.

        The answer is the next proposal's token if that stands too.
        """
        choice, count = self._verified, len(want.proposals)
        length = len(sequence) - count + index
        choice.sampled, choice.position = self._sampled, length
        choice.offer = want.proposals[index] if self._sampled and index < count else None
        return self._narrowed(choice, sequence, length) if self._rules else choice

    def _proposal(self, want: Propose, sequence: Sequence) -> Choice | None:
        choice = self._draft
        choice.sampled = want.drawn and self._sampled
        choice.draft = choice.sampled or want.rated
        if choice.sampled:
            choice.position = len(sequence.text)
        return self._narrowed(choice, sequence) if want.ruled and self._rules else choice

    def _narrowed(self, choice: Choice, sequence: Sequence, length: int | None = None) -> Choice | None:
        choice.banned = None
        context = self._task.context(sequence, length)
        for rule in self._rules:
            if not rule.narrow(choice, context):
                return None
        return choice
