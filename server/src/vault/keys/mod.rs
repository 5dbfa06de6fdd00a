//! The keys in use: master keys and each workspace's keys. `RotateKey` starts a job, and so is `jobs::rotate_key`.

pub(super) mod master_keys;
pub(super) mod workspace_keys;
