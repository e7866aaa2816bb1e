"""What runs in a candidate's process, beside the model's program: untrusted from the moment the source arrives."""
