//! Meta.
/// x
#[derive(Debug)]
pub struct MetaConfig {}
/// x
#[derive(Debug)]
pub struct Meta {}
