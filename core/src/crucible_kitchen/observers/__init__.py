"""Handlers: where events can go, one a module.

| module | handler |
| --- | --- |
| `console` | lines for people, on standard error |
| `jsonl` | a file of JSON lines, which `crucible trace` reads |
| `otel` | OpenTelemetry spans and metrics; needs the extra `otel` |

Each is an observer like any other: `kitchen.observe(JsonLines("trace.jsonl"))`. The table
`[observe]` of `crucible.toml` switches them on by name (`config`).
"""
