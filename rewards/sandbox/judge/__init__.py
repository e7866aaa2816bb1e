"""What runs in a judge's process: the tests, the expected values and the verdict. It trusts nothing from the guest."""
