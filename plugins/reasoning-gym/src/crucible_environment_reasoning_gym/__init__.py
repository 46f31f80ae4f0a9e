"""Data sets of reasoning-gym as environments of Crucible Kitchen."""
