# Recipes for `just`. CI runs the same commands.

# List the recipes.
default:
    @just --list

# Run the vault and a Graph API sandbox on loopback, and show the life of a token.
demo:
    cargo run --release -- demo

# Run all tests. They start a PostgreSQL cluster of their own.
test:
    cargo test --workspace

# Check format, lints, protos and licenses.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy --workspace --no-default-features -- -D warnings
    npx --yes @bufbuild/buf@1.75.0 lint
    npx --yes @bufbuild/buf@1.75.0 format --diff --exit-code
    cargo deny check bans licenses sources

# Do everything that CI does.
ci:
    bash .ci/run
