//! Connect links: [`create`] makes them, [`manage`] lists and revokes them, and [`open`] shows what is behind one.

pub(in crate::vault) mod create;
pub(in crate::vault) mod manage;
pub(in crate::vault) mod open;
