# What a person would want; CI calls the same recipes' commands.

# List the recipes.
default:
    @just --list

# The vault and a Graph API sandbox on loopback, with a story in the terminal.
demo:
    cargo run --release -- demo

# All tests, PostgreSQL included: the tests start their own throwaway cluster.
test:
    cargo test --workspace

# Format, lints, protos, licences.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy -p token-vault --no-default-features -- -D warnings
    npx --yes @bufbuild/buf@1.75.0 lint
    npx --yes @bufbuild/buf@1.75.0 format --diff --exit-code
    cargo deny check bans licenses sources

# Everything that CI does.
ci:
    bash .ci/run
