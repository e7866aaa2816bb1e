"""The learner: FSDP2 ranks that turn packed micro-batches into weight updates. It never sees a reward."""
