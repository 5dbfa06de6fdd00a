//! The API of Token Vault: the code generated from the package `tokenvault.v1`, for server and clients.
//!
//! The `.proto` files under `tokenvault/v1` say what each message means; the generated docs repeat it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod reason;
mod redact;

/// Package `tokenvault.v1`.
pub mod v1 {
    // Generated code: we can't change its style.
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction, rustdoc::all)]

    tonic::include_proto!("tokenvault.v1");

    /// The encoded `FileDescriptorSet` of the package and its imports, with comments, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tokenvault.v1.bin"));

    /// The path of every RPC of the package: `/tokenvault.v1.TokenVault/GetToken`.
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
