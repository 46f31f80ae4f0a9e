"""Where events can go, one a module.

| module | what is in it |
| --- | --- |
| `console` | lines for people, on standard error |
| `jsonl` | a file of JSON lines, which `crucible trace` reads |
| `otel` | OpenTelemetry spans and metrics; needs the extra `otel` |

| `tracker` | the base of observers that show runs on pages of their own |
| `installed` | observers of other packages |
| `progress`, `headline`, `screens` | what a run shows while it works, and where |

Each is an observer like any other: `kitchen.observe(JsonLines("trace.jsonl"))`. The table
`[observe]` of `crucible.toml` switches them on by name (`config`).
"""
