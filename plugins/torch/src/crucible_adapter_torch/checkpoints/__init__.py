"""What is written: checkpoints, exports, and what a killed process leaves."""
