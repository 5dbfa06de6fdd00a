//! Exchanges: what becomes of the token held and of the one that the provider gives for it.

mod crash;
mod equal_work;
mod table;
