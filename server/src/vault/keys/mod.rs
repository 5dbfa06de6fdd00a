//! The keys in use: master keys and each workspace's keys. `RotateKey` begins a job, so it is in `jobs::rotate_key`.

pub(super) mod master_keys;
pub(super) mod workspace_keys;
