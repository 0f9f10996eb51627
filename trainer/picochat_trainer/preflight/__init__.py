"""What preflight measures of a run folder and of its machine, and its report for people. The rules are in the contract."""
