"""The zoom protocol: words, replies, crops, and the conversation that joins them. No models, files or pixels."""

from zoomiqa.protocol.conversation import SAMPLING_PRESETS, ConversationSettings, converse
from zoomiqa.protocol.geometry import CropPlan, plan_crop
from zoomiqa.protocol.prompts import PromptSet, default_prompts, load_prompts
from zoomiqa.protocol.reply import ParsedReply, parse_reply

__all__ = [
    "SAMPLING_PRESETS",
    "ConversationSettings",
    "CropPlan",
    "ParsedReply",
    "PromptSet",
    "converse",
    "default_prompts",
    "load_prompts",
    "parse_reply",
    "plan_crop",
]
