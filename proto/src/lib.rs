//! The contract of Token Vault: the generated code of package `tokenvault.v1`, for server and clients alike.
//!
//! What each message means stands in the `.proto` files under `tokenvault/v1`; the generated docs repeat it.

#![forbid(unsafe_code)]

mod reason;
mod redact;

/// Package `tokenvault.v1`.
pub mod v1 {
    // Generated code: its style is not ours to mend.
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction, rustdoc::all)]

    tonic::include_proto!("tokenvault.v1");

    /// The encoded `FileDescriptorSet` of the package and what it imports, comments included, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tokenvault.v1.bin"));

    /// Every RPC of the package, by the path of its request line: `/tokenvault.v1.TokenVault/GetToken`.
    pub const METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/tokenvault.v1.methods.rs"));
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    #[test]
    fn descriptors_carry_comments_and_imports() {
        let set = prost_types::FileDescriptorSet::decode(super::v1::FILE_DESCRIPTOR_SET)
            .expect("descriptors decode");
        let (own, imported): (Vec<_>, Vec<_>) =
            set.file.iter().partition(|file| file.package() == "tokenvault.v1");
        assert!(!own.is_empty() && !imported.is_empty(), "reflection needs both");
        for file in own {
            let locations = file.source_code_info.as_ref().map_or(&[][..], |info| &info.location);
            assert!(
                locations.iter().any(|location| location.leading_comments.is_some()),
                "{} has lost its comments",
                file.name()
            );
        }
    }
}
