//! Against the sandbox, over real HTTP.
