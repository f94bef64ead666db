"""Drafts: where speculation takes the tokens from that it lets the model verify, one kind a file."""

from loquent.decoding.drafts.base import Draft, Drafting
from loquent.decoding.drafts.lookup import LookupDraft
from loquent.decoding.drafts.model import ModelDraft
from loquent.decoding.drafts.universal import UniversalDraft

__all__ = ["Draft", "Drafting", "LookupDraft", "ModelDraft", "UniversalDraft"]
