"""What runs in a zygote: it isolates itself once, then starts a judge and a guest for each program."""
