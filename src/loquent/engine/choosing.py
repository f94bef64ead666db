"""Choosing: what a backend that selects is asked about the reads of a request; it answers nothing itself."""

from __future__ import annotations

from loquent.cache import Sequence
from loquent.decoding.choice import Choice
from loquent.decoding.task import Task
from loquent.decoding.wants import Next, Propose, Top, Want

_SEED_MASK = (1 << 64) - 1


class Chooser:
    """The choices of one request: one object for each of the reads that it has in a step, brought up to date by each.

    Args:
        task: the request's.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._rules, self._sampled = task, task.decoding.rules, task.decoding.sampled
        self._choices: list[Choice] = []
        self._draft = Choice()  # a request drafts one token at a time

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

    def _proposal(self, want: Propose, sequence: Sequence) -> Choice | None:
        ruled = want.ruled and bool(self._rules)
        # Where it is drawn its whole distribution is wanted, and rules act before the log-softmax of a confidence.
        if (want.drawn and self._sampled) or (ruled and want.rated):
            return None
        self._draft.normalized, self._draft.best = want.rated, int(want.rated)
        return self._narrowed(self._draft, sequence) if ruled else self._draft

    def _narrowed(self, choice: Choice, sequence: Sequence) -> Choice | None:
        choice.banned = None
        context = self._task.context(sequence)
        for rule in self._rules:
            if not rule.narrow(choice, context):
                return None
        return choice
