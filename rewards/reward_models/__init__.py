"""Reward models that run in this process: how a conversation becomes token ids, a batch and a score.

- `encoding`: chat template to text to ids; exactly one BOS; what an answer says can't become a special token.
- `batching`: rows of similar length under a budget of tokens.
- `loading`: device, number format, and a refusal of weights that are not there.
- `classifier`, `armorm`: one score for a conversation.
- `pairwise`: which of two answers is better.

The term that uses them is `rewards.helpfulness`. torch and transformers are imported when a model is loaded.
"""
