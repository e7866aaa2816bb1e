"""Reward heads: a linear reward on a language model's hidden state, fitted to preference pairs (Bradley-Terry).

A head is a few kB: ``NAME.safetensors`` (`score.weight` [1, H], `norm.weight` [H]) and ``NAME.json`` (the layer that it
reads, the chat template, the data and the held-out figures). With its backbone it makes an ordinary Hugging Face
directory, a *ForSequenceClassification that loads through the same path as a reward model of any size.

    from grpo.reward_heads.pairs import read_pairs, split_by_prompt
    from grpo.reward_heads.features import FeatureRun, read_features   # hidden states of pairs, kept on disk
    from grpo.reward_heads.training import HeadPlan, fit_head          # -> RewardHead; chooses layer and ridge
    from grpo.reward_heads.head import RewardHead                      # .save(path), .load(path)
    from grpo.reward_heads.composition import compose                  # backbone + head -> model directory
    from grpo.reward_heads.evaluation import score_pairs, PairReport   # through the reward's own path

Command line: ``grpo reward_head fit`` and ``grpo reward_head evaluate`` (launch/reward_head.py). A head in
``grpo/reward_heads/shipped/`` is a built-in model of its file's name.

Light to import: torch and transformers are loaded inside the functions that need them.
"""
